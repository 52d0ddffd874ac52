/**
 * Drivers of our own, and those of callers, as connections.
 */
import type { LockBackendError } from "@dlock/core"
import { Errors, type Secret } from "@dlock/core/backend"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import type { EventEmitter } from "node:events"
import * as client from "./client.ts"
import type { Connection } from "./client.ts"
import * as drivers from "./drivers.ts"
import type { Access, Driver } from "./drivers.ts"
import * as errors from "./errors.ts"
import type { Failure, ToError } from "./errors.ts"
import type { Login, Settings } from "./options.ts"

/** Takes the passwords out of what servers and drivers say. */
const hider = (secrets: ReadonlyArray<Secret.Secret | undefined>) => (text: string): string =>
  secrets.reduce((hidden, secret) => secret?.hide(hidden) ?? hidden, text)

/** Reads passwords and certificates before each connection, and hands them to the driver. */
const preparing = (
  settings: Login & Partial<Pick<Settings, "sentinelPassword" | "sentinelTls">>,
  use: (access: Access) => void
): Effect.Effect<void, Failure> =>
  Effect.mapBoth(drivers.access(settings), {
    onFailure: (problem): Failure => ({ _tag: "NotConnected", cause: new Error(problem) }),
    onSuccess: use
  })

/** One server, or the master that sentinels watch. */
const openOne = (driver: Redis, settings: Login & Partial<Settings>, limit: number, toError: ToError) =>
  client.make(driver, {
    own: true,
    limit,
    prepare: preparing(settings, (access) => Object.assign(driver.options, access)),
    toError
  })

const openCluster = Effect.fnUntraced(function*(
  settings: Settings,
  limit: number,
  toError: ToError
): Effect.fn.Return<Connection, LockBackendError, Scope.Scope> {
  const first = yield* Effect.mapError(
    drivers.access(settings),
    (detail) => Errors.make("redis").unreachable("connect", { detail })
  ).pipe(Effect.timeoutOrElse({
    duration: limit,
    orElse: () =>
      Effect.fail(Errors.make("redis").timeout("connect", { detail: "no password or certificates in time" }))
  }))
  const driver = drivers.cluster(settings, first, limit)
  let latest = first
  // The driver has a copy of its options, and a new connection to a node is not open yet.
  const events: EventEmitter = driver
  events.on("+node", (node: Redis) => Object.assign(node.options, latest))
  const prepare = preparing(settings, (access) => {
    latest = access
    for (const node of driver.nodes()) Object.assign(node.options, access)
  })
  return yield* client.make(driver, { own: true, limit, prepare, toError })
})

/** A connection of our own. */
export const open = (settings: Settings): Effect.Effect<Connection, LockBackendError, Scope.Scope> =>
  Effect.suspend(() => {
    const { addrs: [address], commandTimeout: limit, mode, password, sentinelPassword } = settings
    const toError = errors.make("redis", hider([password, sentinelPassword]))
    if (mode === "cluster") return openCluster(settings, limit, toError)
    const driver = mode === "sentinel" ? drivers.sentinel(settings, limit) : drivers.single(address, settings, limit)
    return openOne(driver, settings, limit, toError)
  })

/** A connection of our own to one of several servers. */
export const openNode = (
  backend: string,
  address: Settings["addrs"][number],
  login: Login,
  limit: number
): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.suspend(() =>
    openOne(drivers.single(address, login, limit), login, limit, errors.make(backend, hider([login.password])))
  )

const isDriver = (u: unknown): u is Driver =>
  Predicate.isObject(u) && ["sendCommand", "connect", "disconnect", "duplicate", "on"].every((method) =>
    method in u && Predicate.isFunction(u[method])
  ) && "options" in u && "status" in u

/** A connection over a driver that the caller opened and will close. */
export const use = (
  backend: string,
  given: unknown,
  limit: number
): Effect.Effect<Connection, LockBackendError, Scope.Scope> =>
  Effect.suspend(() => {
    const refuse = (detail: string) => Effect.fail(Errors.make(backend).options("connect", { detail }))
    if (!isDriver(given)) return refuse("client: expected a Redis or Cluster of ioredis")
    if ("monitor" in given.options && given.options.monitor === true) return refuse("client: it is in monitor mode")
    return client.make(given, { own: false, limit, prepare: Effect.void, toError: errors.make(backend) })
  })
