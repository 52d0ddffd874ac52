import { ConnectionTest } from "@dlock/core/testing"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Option, Redacted } from "effect"
import Dns from "node:dns"
import * as Module from "node:module"
import { proxy } from "../harness/Proxy.ts"
import { zooKeeper } from "../harness/ZooKeeperServer.ts"
import { freshKey, newRequest } from "../requests.ts"
import { childrenOf, connect, grant, limit, listen, mkdirp, packetsReceived, roadTo, ZooKeeper } from "./support.ts"

const commandTimeout = "3 seconds"
const password = "open-sesame"

const options = ({ host, port }: ConnectionTest.Place): ZooKeeperLock.Options => ({
  servers: `${host}:${port}`,
  sessionTimeout: "6 seconds",
  commandTimeout
})

const credentials = (place: ConnectionTest.Place, password: ZooKeeperLock.Options["password"]) => ({
  ...options(place),
  prefix: "/locked",
  ...(password !== undefined && { username: "app", password })
})

/** A server whose prefix belongs to a user: logging in never fails, working under it does. */
const locked = Effect.gen(function*() {
  const server = yield* zooKeeper({})
  const owner = yield* ZooKeeperLock.make(credentials(server, password))
  const request = {
    key: "first",
    owner: "first",
    ttl: 3000,
    spare: 0,
    onLost: () => {},
    onWanted: () => {}
  }
  yield* owner.acquire(request)
  yield* owner.release(request)
  return { server, password, options: credentials }
})

const [create, remove, admin] = [4, 8, 31]

/** A prefix that an administrator made, in which the user may create and delete, below what the user has no rights to. */
const leastRights = Effect.gen(function*() {
  const server = yield* zooKeeper({})
  const administrator = yield* connect([server.addr], { digest: "admin:secret" })
  yield* mkdirp(administrator, "/managed/locks")
  yield* grant(administrator, "/managed/locks", ["admin:secret", admin], [`app:${password}`, create + remove])
  yield* grant(administrator, "/managed", ["admin:secret", admin])
  yield* grant(administrator, "/", ["admin:secret", admin])
  return { ...credentials(server, password), prefix: "/managed/locks" }
})

const driver = (settings: Parameters<typeof connect>[1]) => ({ host, port }: ConnectionTest.Place) =>
  Effect.map(connect([`${host}:${port}`], settings), (driver) => ({
    make: ZooKeeperLock.makeClient(driver, { commandTimeout }),
    isOpen: Effect.callback<boolean>((resume) =>
      driver.exists("/", (error) => resume(Effect.succeed(error === null || error === undefined)))
    )
  }))

ConnectionTest.suite<ZooKeeperLock.Options>("zookeeper", {
  declaration: ZooKeeperLock.declaration,
  make: ZooKeeperLock.make,
  layerConfig: ZooKeeperLock.layerConfig,
  options,
  environment: ({ host, port }) => ({ DLOCK_ZOOKEEPER_SERVERS: `${host}:${port}` }),
  commandTimeout,
  server: zooKeeper({}),
  road: proxy,
  locked,
  leastRights,
  given: {
    "a driver": driver({}),
    "a driver with credentials and a short session": driver({ digest: `app:${password}`, sessionTimeout: 2000 })
  }
})

/** Until the scope closes, the name has these addresses, in this order. */
const resolved = (name: string, addresses: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { lookup } = Dns
      const answer = (...args: ReadonlyArray<unknown>) => {
        const [host, options, callback] = args
        if (host !== name) return Reflect.apply(lookup, Dns, args)
        const all = typeof options === "object" && options !== null && "all" in options && options.all === true
        const found = addresses.map((address) => ({ address, family: 4 }))
        if (typeof callback !== "function") return
        if (all) callback(null, found)
        else callback(null, addresses[0], 4)
      }
      Object.assign(Dns, { lookup: answer })
      Module.syncBuiltinESMExports()
      return lookup
    }),
    (lookup) =>
      Effect.sync(() => {
        Object.assign(Dns, { lookup })
        Module.syncBuiltinESMExports()
      })
  )

layer(ZooKeeper.layer({}), { excludeTestServices: true, timeout: "1 minute" })("servers", (it) => {
  it.effect("that one name has several addresses of are all tried, also after a disconnection", () =>
    Effect.gen(function*() {
      const { servers: [server = ""] } = yield* ZooKeeper
      const road = yield* roadTo(server)
      yield* listen(() => {}, "127.0.0.2", road.port)
      yield* listen(() => {}, "127.0.0.3", road.port)
      yield* resolved("zoo.test", ["127.0.0.2", "127.0.0.3", "127.0.0.1"])
      const options = { servers: [`zoo.test:${road.port}`], sessionTimeout: "20 seconds" } as const
      const client = yield* limit("it connects")(ZooKeeperLock.make(options))
      const request = newRequest(freshKey())
      yield* client.acquire(request)
      for (const _ of [1, 2, 3]) {
        yield* road.cut
        assert.isTrue(Option.isSome(yield* limit("it comes back")(client.renew(request, { fresh: true }))))
      }
      assert.strictEqual(yield* client.release(request), "released")
    }))

  it.effect("may have a chroot, which is made when it does not exist", () =>
    Effect.gen(function*() {
      const { bare, servers: [server = ""] } = yield* ZooKeeper
      const client = yield* ZooKeeperLock.make({ servers: `${server},${server}/app/one` })
      const request = newRequest("orders")
      yield* client.acquire(request)
      assert.lengthOf(yield* childrenOf(bare, "/app/one/locks/orders"), 1)
      const driver = yield* connect([`${server}/app/one`])
      const other = yield* ZooKeeperLock.makeClient(driver)
      assert.isTrue(
        Option.isNone(yield* other.tryAcquire(newRequest("orders"))),
        "it is the same lock as below a chroot"
      )
      yield* client.release(request)
    }))

  it.effect("a given client whose chroot does not exist is told so, after few requests", () =>
    Effect.gen(function*() {
      const { nodes: [node], servers: [server = ""] } = yield* ZooKeeper
      const driver = yield* connect([`${server}/missing`])
      const client = yield* ZooKeeperLock.makeClient(driver)
      const before = yield* packetsReceived(node?.port ?? 0)
      for (const waits of [true, false]) {
        const request = newRequest(freshKey())
        const asking = waits ? Effect.asVoid(client.acquire(request)) : Effect.asVoid(client.tryAcquire(request))
        const error = yield* limit("it is told")(Effect.flip(asking))
        assert.strictEqual(error.reason, "Rejected")
        assert.include(error.message, "chroot")
        assert.strictEqual(yield* client.release(request), "gone")
      }
      assert.isBelow((yield* packetsReceived(node?.port ?? 0)) - before, 60)
    }))
})

describe("a server that every session has to authenticate to", () => {
  it.live("says so to one without credentials, and serves one with them", () =>
    Effect.gen(function*() {
      const { addr } = yield* zooKeeper({ settings: ["enforce.auth.enabled=true", "enforce.auth.schemes=digest"] })
      const error = yield* limit("it is told")(Effect.flip(ZooKeeperLock.make({ servers: addr })))
      assert.strictEqual(error.reason, "Unauthorized")
      assert.include(error.message, "set username and password")
      const password = Redacted.make("open sesame")
      const client = yield* ZooKeeperLock.make({ servers: addr, username: "app", password })
      const request = newRequest(freshKey())
      yield* limit("the key is granted")(client.acquire(request))
      assert.strictEqual(yield* client.release(request), "released")
    }))
})
