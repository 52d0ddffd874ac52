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
import * as memoryStore from "./internal/memoryStore.ts"
import { Lock } from "./Lock.ts"
import { LockBackend } from "./LockBackend.ts"
import * as LockConfig from "./LockConfig.ts"

/**
 * A `LockBackend` over a store of its own. Programs that are given the same one exclude each other.
 *
 * @category models
 * @since 0.1.0
 */
export interface MemoryBackend extends LockBackendService {
  /**
   * Takes `key` away from its holder, who learns of the loss at once, and gives it to the next in line. `false` when
   * nobody holds it. With it a test sees what a program does when it loses a lock.
   */
  readonly revoke: (key: string) => Effect.Effect<boolean>
}

type LockBackendService = LockBackend["Service"]

/**
 * The name of the backend in errors, spans and metrics.
 *
 * @category constructors
 * @since 0.1.0
 */
export const name = "memory"

/**
 * A backend over an empty store. It needs no scope: it has no timer except while somebody waits.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<MemoryBackend> = Effect.sync(() => {
  const store = memoryStore.make()
  return {
    name,
    tenure: "lease",
    check: () => undefined,
    tryAcquire: (request) =>
      Effect.withFiberSucceed((fiber) => Option.fromUndefinedOr(store.tryAcquire(request, fiber.getRef(Clock.Clock)))),
    acquire: (request) => Effect.withFiber((fiber) => store.acquire(request, fiber)),
    renew: (request) =>
      Effect.withFiberSucceed((fiber) => Option.fromUndefinedOr(store.renew(request, fiber.getRef(Clock.Clock)))),
    release: (request) => Effect.withFiberSucceed((fiber) => store.release(request, fiber.getRef(Clock.Clock))),
    revoke: (key) => Effect.withFiberSucceed((fiber) => store.revoke(key, fiber.getRef(Clock.Clock)))
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
 * Locks over a backend that others use too: two layers over one backend are two programs that exclude each other.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerShared = (backend: MemoryBackend): Layer.Layer<Lock> =>
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
