import type { Lock } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schedule, Scope } from "effect"
import { atEveryOperation, type Cast, disturbances, run, timeout } from "./Disturbance.ts"

type Form = (lock: Lock["Service"], work: Effect.Effect<void>) => Effect.Effect<unknown, unknown>

const withLock: Form = (lock, work) => lock.withLock("k", work)
const withLockOnSchedule: Form = (lock, work) => lock.withLock("k", work, { retry: Schedule.spaced(5) })
const withLockInTime: Form = (lock, work) => lock.withLock("k", work, { timeout })
const acquireInTime: Form = (lock, work) => Effect.scoped(Effect.andThen(lock.acquire("k", { timeout }), work))
const withLockIfAvailable: Form = (lock, work) => lock.withLockIfAvailable("k", work)
const acquire: Form = (lock, work) => Effect.scoped(Effect.andThen(lock.acquire("k"), work))
const tryAcquire: Form = (lock, work) =>
  Effect.scoped(Effect.flatMap(lock.tryAcquire("k"), (lease) => lease._tag === "Some" ? work : Effect.void))
const earlyRelease: Form = (lock, work) =>
  Effect.scoped(Effect.flatMap(lock.acquire("k"), (lease) => Effect.andThen(work, lease.release)))

/**
 * The scope is closed where an interruption may come, and once more for sure. (An interruption within the operation of
 * `Scope.close` that marks the scope as closed makes Effect itself forget the finalizers.)
 */
const closedByHand: Form = (lock, work) =>
  Effect.flatMap(Scope.make(), (scope) =>
    Scope.provide(lock.acquire("k"), scope).pipe(
      Effect.andThen(work),
      Effect.andThen(Scope.close(scope, Exit.void)),
      Effect.onExit(() => Scope.close(scope, Exit.void))
    ))

const alone = (form: Form): Cast => ({ caller: 0, fibers: ({ lock, work }) => [form(lock, work)] })
const amongOthers = (form: Form, strangers: boolean): Cast => ({
  caller: 1,
  strangers,
  fibers: (world) => {
    const other = (strangers ? world.stranger : world.lock).withLock("k", world.work)
    return [other, form(world.lock, world.work), other]
  }
})
const inLine = (form: Form): Cast => amongOthers(form, false)
const amongStrangers = (form: Form): Cast => amongOthers(form, true)

const ttl = { ttl: 30 } as const

const traced = (cast: Cast): Cast => ({ ...cast, traced: true })

/** A grant that is late, and must be confirmed. */
const late: Cast = {
  caller: 0,
  ...ttl,
  script: (backend) => backend.always("acquire", { after: 10 }),
  fibers: ({ lock, work }) => [lock.withLock("k", work, ttl), lock.withLock("k", work, ttl)]
}
/** A grant that is too late: the confirmation is refused, and the waiter asks again. */
const tooLate: Cast = {
  caller: 0,
  ...ttl,
  script: (backend) => backend.script("acquire", { after: 40 }, { after: 40 }),
  fibers: ({ lock, work }) => [lock.withLock("k", work, ttl), lock.withLock("k", work, ttl)]
}
/** A wait that ends with its timeout, in the line of the server and in the local line. */
const timesOut: Cast = {
  caller: 1,
  strangers: true,
  fibers: ({ lock, stranger, work }) => {
    const impatient = Effect.ignore(Effect.scoped(lock.acquire("k", { timeout: 3 })))
    return [
      stranger.withLock("k", Effect.andThen(Effect.sleep(5), work)),
      impatient,
      impatient,
      lock.withLock("k", work)
    ]
  }
}
/** Answers that are errors, of requests that were served. */
const fails: Cast = {
  caller: 0,
  script: (backend) => {
    backend.script("acquire", { fails: "Rejected", after: 1 }, { fails: "Timeout" })
    backend.script("release", { fails: "Unreachable", after: 1 }, { arrives: false, fails: "Timeout" })
  },
  fibers: ({ lock, work }) => [0, 1, 2, 3].map(() => Effect.retry(lock.withLock("k", work), { times: 3 }))
}

type Kind = keyof typeof disturbances

const all: ReadonlyArray<Kind> = [
  "an interruption",
  "an interruption during a yield",
  "a yield",
  "a loss",
  "the end of the layer"
]
const some: ReadonlyArray<Kind> = ["an interruption", "an interruption during a yield", "a loss"]

const cases: ReadonlyArray<readonly [name: string, cast: Cast, kinds: ReadonlyArray<Kind>, slow: boolean]> = [
  ["withLock, alone", alone(withLock), all, true],
  ["withLock, alone and traced", traced(alone(withLock)), all, true],
  ["withLock, between two in the local line and traced", traced(inLine(withLock)), some, false],
  ["withLock, between two in the local line", inLine(withLock), all, true],
  ["withLock, between two of another process", amongStrangers(withLock), some, true],
  ["withLock on a schedule, between two in the local line", inLine(withLockOnSchedule), some, false],
  ["withLockIfAvailable, alone", alone(withLockIfAvailable), some, false],
  ["acquire, alone", alone(acquire), all, true],
  ["acquire, alone and traced", traced(alone(acquire)), all, false],
  ["acquire, between two in the local line", inLine(acquire), all, false],
  ["acquire, between two of another process", amongStrangers(acquire), some, false],
  ["tryAcquire, alone", alone(tryAcquire), some, false],
  ["acquire into a scope that is closed by hand", alone(closedByHand), some.slice(1), false],
  ["acquire and release, between two in the local line", inLine(earlyRelease), some, false],
  ["withLock in time, alone", alone(withLockInTime), ["a timeout"], true],
  ["acquire in time, alone", alone(acquireInTime), ["a timeout"], true],
  ["a late grant", late, some, false],
  ["a grant that is too late", tooLate, some, false],
  ["a timeout", timesOut, some, false],
  ["errors", fails, some, false]
]

describe.each(cases)("%s: nothing is left", (_, cast, kinds, alsoSlow) => {
  for (const slow of alsoSlow ? [false, true] : [false]) {
    const where = slow ? " over a slow network" : ""

    it.effect.each(kinds)(`after %s at any operation${where}`, (kind) =>
      Effect.gen(function*() {
        assert.isAbove(yield* atEveryOperation(cast, disturbances[kind], slow), 20, "runs")
      }), 120_000)

    // Where time decides, it must not go on while fibers do nothing but yield.
    if (cast.script !== undefined) continue
    it.effect(`after a yield at every k-th operation${where}`, () =>
      Effect.gen(function*() {
        // A fiber that yields at every second operation gets nowhere: resuming it is one.
        for (let k = 3; k <= 12; k++) {
          yield* run(cast, disturbances["a yield"], (operation) => operation % k === 0, slow, `every ${k} operations`)
        }
      }), 120_000)
  }
})
