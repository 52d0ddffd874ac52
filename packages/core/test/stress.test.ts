import { type Lease, type Lock, LockLost } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Schedule, Scope } from "effect"
import { assertClean, build, elapse, ended, jumpingClock, scenario } from "./fixture.ts"
import * as ScriptedBackend from "./ScriptedBackend.ts"

/** A small random generator with a seed. */
const makeRandom = (seed: number) => {
  let state = seed
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  return {
    chance: (probability: number) => next() < probability,
    integer: (below: number) => Math.floor(next() * below),
    pick: <A>(values: readonly [A, ...ReadonlyArray<A>]): A => {
      const at = Math.floor(next() * values.length)
      for (const value of values.slice(at, at + 1)) return value
      return values[0]
    }
  }
}

type Random = ReturnType<typeof makeRandom>

/** What the network does to the next request: mostly nothing. */
const step = (random: Random): ScriptedBackend.Step => {
  const before = random.chance(0.5) ? random.integer(20) : 0
  const after = random.chance(0.5) ? random.integer(20) : 0
  if (random.chance(0.85)) return { before, after, twice: random.chance(0.1) }
  return random.pick<ScriptedBackend.Step>([
    { before, fails: "Timeout", after: 50 },
    { arrives: false, fails: "Unreachable" },
    { before: random.integer(400), after },
    { before, after: random.integer(400) },
    { before, after: "never" },
    { arrives: false },
    { before, fails: "Rejected" },
    { before, dies: "defect" }
  ])
}

const faultless: ScriptedBackend.Step = {}

interface Believer {
  readonly key: string
  readonly lease: Lease
}

const play = Effect.fnUntraced(function*(
  random: Random,
  faults: boolean,
  seed: number,
  block: (millis: number) => Effect.Effect<unknown>,
  sleep: (millis: number) => Effect.Effect<unknown>
) {
  const backend = yield* ScriptedBackend.make({
    commandTimeout: 300,
    freedBy: random.pick(["ttl", "session"] as const)
  })
  const scope = yield* Scope.make()
  const locks = yield* Effect.all([build(backend, scope), build(backend, scope), build(backend, scope)])
  const keys = ["a", "b", "c"] as const
  const believers = new Set<Believer>()
  const tokens = new Map<string, bigint>()
  let sections = 0
  let losses = 0

  /** The section of a lease: no other may believe to hold the key, from its first step to its last. */
  const section = (lease: Lease) =>
    Effect.acquireUseRelease(
      Effect.gen(function*() {
        const me = { key: lease.key, lease }
        for (const other of believers) {
          if (other.key === lease.key && (yield* other.lease.isHeld)) {
            assert.fail(`seed ${seed}: ${other.lease.owner} and ${lease.owner} believe to hold ${lease.key}`)
          }
        }
        assert.isTrue(lease.fencingToken > (tokens.get(lease.key) ?? 0n), `seed ${seed}: tokens grow`)
        tokens.set(lease.key, lease.fencingToken)
        believers.add(me)
        sections++
        return me
      }),
      () => Effect.sleep(random.pick([0, 1, 5, 30, 200])),
      (me) => Effect.sync(() => believers.delete(me))
    )

  const options = (): Lock.Options => ({
    ttl: random.pick([100, 300, 1000]),
    timeout: random.pick([undefined, undefined, 0, 50, 400]),
    retry: random.chance(0.2) ? Schedule.upTo(Schedule.spaced(20), { times: 5 }) : undefined,
    renew: random.pick([undefined, undefined, true, false, 50]),
    maxHold: random.chance(0.1) ? 100 : undefined
  })

  const once = (lock: Lock["Service"]): Effect.Effect<unknown, unknown> => {
    const key = random.pick(keys)
    const opts = options()
    return random.pick<() => Effect.Effect<unknown, unknown>>([
      () => lock.withLock(key, section, opts),
      () => lock.withLock(key, section, opts),
      () => lock.withLockIfAvailable(key, section, opts),
      () =>
        Effect.scoped(Effect.flatMap(lock.acquire(key, opts), (lease) => Effect.raceFirst(section(lease), lease.lost))),
      () =>
        Effect.scoped(
          Effect.flatMap(lock.acquire(key, opts), (lease) =>
            Effect.andThen(Effect.raceFirst(section(lease), lease.lost), lease.release))
        ),
      () =>
        Effect.scoped(
          Effect.flatMap(lock.tryAcquire(key, opts), (lease) =>
            lease._tag === "None" ? Effect.void : Effect.raceFirst(section(lease.value), lease.value.lost))
        )
    ])()
  }

  const worker = (lock: Lock["Service"]) =>
    Effect.gen(function*() {
      for (let i = 0; i < 6; i++) {
        const fiber = yield* Effect.forkChild(once(lock), { startImmediately: true })
        if (random.chance(0.2)) {
          yield* Effect.sleep(random.integer(300))
          yield* Fiber.interrupt(fiber)
        }
        const exit = yield* Fiber.await(fiber)
        if (Exit.isFailure(exit)) {
          for (const reason of exit.cause.reasons) {
            if (reason._tag === "Fail" && reason.error instanceof LockLost) losses++
            // A defect of the backend is told to the caller; anything else is a bug.
            if (reason._tag === "Die" && reason.defect !== "defect") return yield* Effect.die(reason.defect)
          }
        }
      }
    })

  const workers = yield* Effect.forEach(
    Array.from({ length: 12 }, (_, i) => i),
    (i) => Effect.forkChild(worker(locks[i % 3] ?? assert.fail()), { startImmediately: true })
  )
  const verbs = ["acquire", "tryAcquire", "renew", "release"] as const
  for (let i = 0; i < 2000 && workers.some((fiber) => fiber.pollUnsafe() === undefined); i++) {
    // The network is broken for twenty seconds, then it heals.
    for (const verb of verbs) backend.always(verb, faults && i < 400 ? step(random) : faultless)
    if (faults && i < 400 && random.chance(0.02)) backend.freeze()
    if (random.chance(0.2) || i >= 400) yield* backend.thaw
    if (faults && i < 400 && random.chance(0.02)) backend.rob(random.pick(keys))
    if (faults && random.chance(0.02)) yield* block(random.integer(500))
    if (faults && random.chance(0.01)) yield* sleep(random.integer(500))
    yield* elapse(50)
  }
  for (const verb of verbs) backend.always(verb, faultless)
  yield* backend.thaw
  for (const fiber of workers) {
    const exit = ended(fiber, `seed ${seed}: no fiber waits for ever`)
    assert.isTrue(Exit.isSuccess(exit), `seed ${seed}: ${String(exit)}`)
  }
  yield* elapse(Duration.toMillis("10 seconds"))
  assert.strictEqual(believers.size, 0)
  assertClean(backend, `seed ${seed}: nothing is left`)
  yield* Scope.close(scope, Exit.void)
  return { sections, losses }
})

const world = Effect.fnUntraced(function*(seed: number, faults: boolean) {
  const { block, clock, sleep } = yield* jumpingClock
  return yield* Effect.provideService(play(makeRandom(seed), faults, seed, block, sleep), Clock.Clock, clock)
})

describe("many fibers, random options", () => {
  it.effect("in the local line: the one that came first and was not interrupted is first", () =>
    scenario(function*({ backend, lock }) {
      const random = makeRandom(42)
      for (const verb of ["acquire", "release"] as const) backend.always(verb, { before: 1, after: 1 })
      const order: Array<number> = []
      const fibers = yield* Effect.forEach(Array.from({ length: 200 }, (_, i) => i), (i) =>
        Effect.forkChild(
          lock.withLock(
            "k",
            Effect.andThen(Effect.sync(() => order.push(i)), Effect.sleep(random.integer(5))),
            random.chance(0.2) ? { timeout: random.integer(500) + 1 } : {}
          ),
          { startImmediately: true }
        ))
      while (fibers.some((fiber) => fiber.pollUnsafe() === undefined)) {
        yield* elapse(3)
        if (random.chance(0.3)) yield* Fiber.interrupt(fibers[random.integer(200)] ?? assert.fail())
      }
      assert.isAbove(order.length, 50)
      assert.deepStrictEqual(order, order.toSorted((a, b) => a - b))
      assertClean(backend)
    }))

  it.effect("over a faultless network: exclusion, and nothing is left", () =>
    scenario(function*() {
      for (let seed = 1; seed <= 20; seed++) {
        const { sections } = yield* world(seed, false)
        assert.isAbove(sections, 20, `seed ${seed}`)
      }
    }), 120_000)

  it.effect(
    "over a network with every fault: exclusion, every loss is told, and nothing is left",
    () =>
      scenario(function*() {
        let all = 0
        for (let seed = 1; seed <= 50; seed++) {
          const { losses } = yield* world(seed, true)
          all += losses
        }
        assert.isAbove(all, 60, "there were losses")
      }),
    60_000
  )
})
