/**
 * Locks within one process, by the same laws as the backends that use a server: leases that end at their ttl, fencing
 * tokens, a line that is first come, first served. For tests and for programs of one process. All time is Effect's
 * `Clock`, so `TestClock` drives it.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as store from "./internal/memory/store.ts"
import { Lock } from "./Lock.ts"
import { LockBackend } from "./LockBackend.ts"
import * as LockConfig from "./LockConfig.ts"

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name = "memory"

const atOnce = <A>(verb: (now: number) => A): Effect.Effect<A> =>
  Effect.withFiberSucceed((fiber) => verb(store.nowOf(fiber.getRef(Clock.Clock))))

/**
 * A backend over an empty store. Programs that are given the same one exclude each other. It needs no scope: it has no
 * timer except while a request waits. A test takes a lock away by `revoke`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<LockBackend["Service"]> = Effect.sync(() => {
  const memory = store.make()
  return {
    name,
    freedBy: "ttl",
    tellsWanted: true,
    check: () => undefined,
    tryAcquire: (request) => atOnce((now) => Option.fromUndefinedOr(store.tryAcquire(memory, request, now))),
    acquire: (request) => store.acquire(memory, request),
    renew: (request, { spare }) => atOnce((now) => Option.fromUndefinedOr(store.renew(memory, request, spare, now))),
    release: (request) => atOnce((now) => store.release(memory, request, now)),
    inspect: (key) => atOnce((now) => store.inspect(memory, key, now)),
    revoke: (key, owner) => atOnce((now) => store.revoke(memory, key, owner, now)),
    ping: Effect.void
  }
})

/**
 * The `LockBackend` alone. Each build has a store of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBackend: Layer.Layer<LockBackend> = Layer.effect(LockBackend, make)

/**
 * Locks within one process. Each build has a store of its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Lock> = Layer.provide(Lock.layer, layerBackend)

/**
 * Locks over a backend that other layers use too: two layers over one backend are two programs that exclude each other.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerShared = (backend: LockBackend["Service"]): Layer.Layer<Lock> =>
  Layer.provide(Lock.layer, Layer.succeed(LockBackend, backend))

/**
 * Locks within one process, as `LockRegistry.layerConfig` builds them. There is nothing to configure but the defaults
 * of every lock.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (): Layer.Layer<Lock, Config.ConfigError> =>
  LockConfig.layerLock(Config.succeed({}), () => make)
