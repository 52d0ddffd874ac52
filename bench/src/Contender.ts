/**
 * What is compared: anything that can run work under a key.
 */
import { acquire, type Lock, type LockBackendError, LockConfig, withLock, withPermit } from "@dlock/core"
import { Deferred, Effect, Exit, Layer, ManagedRuntime, Scope } from "effect"

/** Ends a holding. */
export type Release = () => Promise<void>

export interface Contender {
  /** Takes and releases each key after the one before; the milliseconds that each took. */
  readonly sequence: (keys: ReadonlyArray<string>) => Promise<Array<number>>
  /** As many workers as there are keys take and release their own key, as often as it says. */
  readonly together: (keys: ReadonlyArray<string>, times: number) => Promise<void>
  /** Waits for the key, runs the work, gives the key back. Left out where there is no waiting. */
  readonly run?: ((key: string, work: () => Promise<void>) => Promise<void>) | undefined
  /** So many loops take the key until then, with so much sleep under it; how often they had it. Default: by `run`. */
  readonly hot?: ((key: string, fibers: number, until: number, millis: number) => Promise<number>) | undefined
  /** Waits for one of so many permits of the key, runs the work, gives the permit back. */
  readonly permit?: ((key: string, limit: number, work: () => Promise<void>) => Promise<void>) | undefined
  /** Takes the key and keeps it alive. Left out where there is no renewal. */
  readonly hold?: ((key: string, ttlMillis: number, onLost: () => void) => Promise<Release>) | undefined
  readonly close: () => Promise<void>
}

/** Where the servers are. */
export interface Site {
  readonly addrs: ReadonlyArray<string>
  /** Of live-mutex. */
  readonly broker: number
}

/** How a contender is made, so that every process can make its own. */
export interface Entry {
  readonly name: string
  /** `floor`: the bare driver's round trips, against which the others are measured. */
  readonly kind: "dlock" | "floor" | "peer"
  readonly make: (site: Site) => Contender | Promise<Contender>
}

/** The monotonic clock of the machine in milliseconds, the same in all of its processes. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6

/** A contender that speaks promises. */
export const promising = (
  parts: Omit<Contender, "sequence" | "together"> & { readonly pair: (key: string) => Promise<unknown> }
): Contender => ({
  ...parts,
  sequence: async (keys) => {
    const times: Array<number> = []
    for (const key of keys) {
      const started = performance.now()
      await parts.pair(key)
      times.push(performance.now() - started)
    }
    return times
  },
  together: async (keys, times) => {
    await Promise.all(keys.map(async (key) => {
      for (let i = 0; i < times; i++) await parts.pair(key)
    }))
  }
})

/** Keeps a key for as long as the work that a library runs under it does not end. */
export const holdBy = (
  run: (work: () => Promise<void>) => Promise<unknown>,
  onLost: () => void
): Promise<Release> =>
  new Promise((resolve, reject) => {
    let isHeld = false
    let free: (() => void) | undefined
    const freed = new Promise<void>((resolve) => {
      free = resolve
    })
    const done = run(() => {
      isHeld = true
      resolve(async () => {
        free?.()
        await done
      })
      return freed
    }).catch((error: unknown) => isHeld ? onLost() : reject(error))
  })

const sequence = (keys: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const times: Array<number> = []
    for (const key of keys) {
      const started = performance.now()
      yield* withLock(key, Effect.void)
      times.push(performance.now() - started)
    }
    return times
  })

const together = (keys: ReadonlyArray<string>, times: number) =>
  Effect.forEach(
    keys,
    Effect.fnUntraced(function*(key) {
      for (let i = 0; i < times; i++) yield* withLock(key, Effect.void)
    }),
    { concurrency: "unbounded", discard: true }
  )

const hot = (key: string, fibers: number, until: number, millis: number) =>
  Effect.gen(function*() {
    let count = 0
    const counted = Effect.sync(() => {
      count++
    })
    const section = withLock(key, millis === 0 ? counted : Effect.andThen(counted, Effect.sleep(millis)))
    const loop = Effect.gen(function*() {
      while (performance.now() < until) yield* section
    })
    yield* Effect.all(Array.from({ length: fibers }, () => loop), { concurrency: "unbounded", discard: true })
    return count
  })

/** How to build dlock over a backend. */
export type LayerOf = (site: Site) => Layer.Layer<Lock, LockBackendError>

export interface Variant {
  /** How locks are held: by `withLock` (default), or by `acquire`, which costs no fiber of its own. */
  readonly by?: "withLock" | "acquire" | undefined
  readonly defaults?: Lock.Defaults | undefined
}

/** dlock as a contender: its loops are fibers, as in a program of Effect. */
export const dlock = (
  layer: Layer.Layer<Lock, LockBackendError>,
  { by = "withLock", defaults = {} }: Variant = {}
): Contender => {
  const runtime = ManagedRuntime.make(Layer.provide(layer, Layer.succeed(LockConfig.LockDefaults, defaults)))
  const section = (key: string, ttl: number, onLost: () => void): Promise<Release> =>
    new Promise((resolve, reject) => {
      const release = Deferred.makeUnsafe<void>()
      let isHeld = false
      const done = runtime.runPromise(withLock(
        key,
        Effect.suspend(() => {
          isHeld = true
          resolve(() => {
            Deferred.doneUnsafe(release, Effect.void)
            return done
          })
          return Deferred.await(release)
        }),
        { ttl }
      )).catch((error: unknown) => isHeld ? onLost() : reject(error))
    })
  const scoped = async (key: string, ttl: number): Promise<Release> => {
    const scope = Scope.makeUnsafe()
    await runtime.runPromise(Effect.provideService(acquire(key, { ttl }), Scope.Scope, scope))
    return () => runtime.runPromise(Scope.close(scope, Exit.void))
  }
  return {
    sequence: (keys) => runtime.runPromise(sequence(keys)),
    together: (keys, times) => runtime.runPromise(together(keys, times)),
    run: (key, work) => runtime.runPromise(withLock(key, Effect.promise(work))),
    permit: (key, limit, work) => runtime.runPromise(withPermit(key, { limit }, Effect.promise(work))),
    hot: (key, fibers, until, millis) => runtime.runPromise(hot(key, fibers, until, millis)),
    hold: by === "withLock" ? section : scoped,
    close: () => runtime.dispose()
  }
}
