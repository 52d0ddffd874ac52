import { ConnectionTest } from "@dlock/core/testing"
import { EtcdLock } from "@dlock/etcd"
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem } from "effect"
import { Etcd3, type IOptions } from "etcd3"
import { authority } from "../harness/Certificates.ts"
import { etcd } from "../harness/EtcdServer.ts"
import { proxy } from "../harness/Proxy.ts"
import { tlsFront } from "../harness/TlsFront.ts"
import { connect } from "./support.ts"

// A login alone takes seconds on a busy machine.
const commandTimeout = "4 seconds"
const password = "open-sesame"

const options = ({ host, port }: ConnectionTest.Place): EtcdLock.Options => ({
  endpoints: `${host}:${port}`,
  commandTimeout,
  dialTimeout: commandTimeout
})

/** A server with `app`, who may touch what begins with `locks/`, as the README asks for. */
const guarded = Effect.gen(function*() {
  const server = yield* etcd({})
  const bare = yield* connect([server.addr])
  yield* Effect.promise(async () => {
    await bare.role("root").create()
    const role = await bare.role("locker").create()
    await role.grant({ permission: "Readwrite", range: bare.range({ prefix: "locks/" }) })
    const root = await bare.user("root").create("root")
    await root.addRole("root")
    const app = await bare.user("app").create(password)
    await app.addRole("locker")
    await bare.auth.authEnable()
  })
  return server
})

const asApp = (place: ConnectionTest.Place) => ({ ...options(place), username: "app", prefix: "locks" })

/** A server behind TLS that wants a certificate of the client. */
const encrypted = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const { ca, sign } = yield* authority
  const [own, client] = [yield* sign("etcd.test", true), yield* sign("client", false)]
  const [cert, key, trusted] = yield* Effect.forEach([own.cert, own.key, ca], (path) => fs.readFileString(path))
  const place = yield* tlsFront(yield* etcd({}), {
    cert,
    key,
    ca: trusted,
    requestCert: true,
    rejectUnauthorized: true,
    ALPNProtocols: ["h2"]
  })
  return {
    server: place,
    plain: options(place),
    trusting: { ...options(place), tls: { ca, ...client } },
    trustingNode: { ...options(place), tls: true },
    expectingAnotherName: { ...options(place), tls: { ca, ...client, serverName: "other.test" } }
  }
})

const driver = (settings: Partial<IOptions>) => ({ host, port }: ConnectionTest.Place) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => new Etcd3({ hosts: `${host}:${port}`, ...settings })),
      (driver) => Effect.sync(() => driver.close())
    ),
    (driver) => ({
      make: EtcdLock.makeClient(driver, { commandTimeout }),
      isOpen: Effect.as(Effect.promise(() => driver.get("any")), true)
    })
  )

ConnectionTest.suite<EtcdLock.Options>("etcd", {
  declaration: EtcdLock.declaration,
  make: EtcdLock.make,
  layerConfig: EtcdLock.layerConfig,
  options,
  environment: ({ host, port }) => ({ DLOCK_ETCD_ENDPOINTS: `${host}:${port}` }),
  commandTimeout,
  server: etcd({}),
  road: proxy,
  locked: Effect.map(guarded, (server) => ({
    server,
    password,
    // A token outlives the connection.
    eachConnect: false,
    options: (place, password) =>
      password === undefined ? { ...options(place), prefix: "locks" } : { ...asApp(place), password }
  })),
  encrypted: Effect.provide(encrypted, NodeServices.layer),
  leastRights: Effect.map(guarded, (server) => ({ ...asApp(server), password })),
  given: {
    "a driver": driver({}),
    "a driver with a deadline for every call": driver({
      defaultCallOptions: (context) => context.isStream ? {} : { deadline: Date.now() + 500 }
    })
  }
})
