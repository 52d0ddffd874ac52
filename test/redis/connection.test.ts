import { ConnectionTest } from "@dlock/core/testing"
import { RedisLock } from "@dlock/redis"
import { NodeServices } from "@effect/platform-node"
import { Effect } from "effect"
import type { RedisOptions } from "ioredis"
import { Redis } from "ioredis"
import { authority } from "../harness/Certificates.ts"
import { reserve } from "../harness/Port.ts"
import { proxy } from "../harness/Proxy.ts"
import { redis } from "../harness/RedisServer.ts"
import { closing, connect } from "./client.ts"

const commandTimeout = "4 seconds"
const password = "open-sesame"

const options = ({ host, port }: ConnectionTest.Place): RedisLock.Options => ({
  addrs: `${host}:${port}`,
  commandTimeout
})

/** A server whose second port speaks TLS and wants a certificate of the client. */
const encrypted = Effect.gen(function*() {
  const { ca, sign } = yield* authority
  const [own, client] = [yield* sign("redis.test", true), yield* sign("client", false)]
  const port = yield* reserve
  const { host } = yield* redis({
    args: ["--tls-port", `${port}`, "--tls-cert-file", own.cert, "--tls-key-file", own.key, "--tls-ca-cert-file", ca]
  })
  const place = { host, port }
  return {
    server: place,
    plain: options(place),
    trusting: { ...options(place), tls: { ca, ...client } },
    trustingNode: { ...options(place), tls: true },
    expectingAnotherName: { ...options(place), tls: { ca, ...client, serverName: "other.test" } }
  }
})

/** The rights that the README asks for. */
const leastRights = Effect.gen(function*() {
  const server = yield* redis({})
  const bare = yield* connect(server.port)
  const keys = "~app:* ~{app:* ~{*}:app:* ~:dlock-fence &app:dlock-wake/*"
  const commands = "+@read +@write +eval +evalsha +publish +subscribe +pubsub +@connection +time +info"
  yield* Effect.promise(() => bare.acl("SETUSER", "app", "on", `>${password}`, ...`${keys} ${commands}`.split(" ")))
  return { ...options(server), keyPrefix: "app:", username: "app", password }
})

type Odd = Pick<
  RedisOptions,
  | "keyPrefix"
  | "stringNumbers"
  | "enableAutoPipelining"
  | "lazyConnect"
  | "autoResendUnfulfilledCommands"
  | "maxRetriesPerRequest"
  | "enableOfflineQueue"
>

const driver = (settings: Odd) => (place: ConnectionTest.Place) =>
  Effect.map(closing(() => new Redis({ ...settings, host: place.host, port: place.port })), (driver) => ({
    make: RedisLock.makeClient(driver, { commandTimeout }),
    isOpen: Effect.map(Effect.promise(() => driver.ping()), (answer) => answer === "PONG")
  }))

ConnectionTest.suite<RedisLock.Options>("redis", {
  declaration: RedisLock.declaration,
  make: RedisLock.make,
  layerConfig: RedisLock.layerConfig,
  options,
  environment: ({ host, port }) => ({ DLOCK_REDIS_ADDRS: `${host}:${port}` }),
  commandTimeout,
  server: redis({}),
  road: proxy,
  locked: Effect.map(redis({ password }), (server) => ({
    server,
    password,
    options: (place, password) => ({ ...options(place), password })
  })),
  encrypted: Effect.provide(encrypted, NodeServices.layer),
  leastRights,
  given: {
    "a driver with a prefix": driver({ keyPrefix: "app:" }),
    "a driver that answers with strings of its own": driver({ stringNumbers: true, enableAutoPipelining: true }),
    "a driver that is not connected yet": driver({ lazyConnect: true }),
    "a driver that sends again by itself": driver({ autoResendUnfulfilledCommands: true, maxRetriesPerRequest: null }),
    "a driver without a queue": driver({ enableOfflineQueue: false, lazyConnect: true })
  }
})
