import { type Lease, type Lock, LockConfig } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
import {
  assertClean,
  assertError,
  build,
  elapse,
  ended,
  errorOf,
  isPending,
  scenario,
  seconds,
  settle,
  start
} from "./fixture.ts"

const section = (lock: Lock["Service"], tokens: Array<bigint>, options?: Lock.Options) =>
  lock.withLock("k", (lease: Lease) => Effect.sync(() => tokens.push(lease.fencingToken)), options)

/** A holder, and so many sections behind it in the local line. */
const lineOf = Effect.fnUntraced(function*(lock: Lock["Service"], count: number, tokens: Array<bigint>) {
  const holder = yield* start(lock.withLock("k", Effect.sleep(1)))
  const fibers = yield* Effect.forEach(Array.from({ length: count }), () => start(section(lock, tokens)))
  return [holder, ...fibers]
})

describe("a hold passes within the process", () => {
  it.effect("for a turn, without asking the backend, and each lease has a token of its own", () =>
    scenario(function*({ backend, lock }) {
      const tokens: Array<bigint> = []
      const fibers = yield* lineOf(lock, 10, tokens)
      yield* elapse(1)
      yield* Fiber.joinAll(fibers)
      // The line came after the grant, so one renewal brought the tokens.
      assert.deepStrictEqual(backend.log.map(({ verb }) => verb), ["acquire", "renew", "release"])
      assert.deepStrictEqual(tokens, tokens.toSorted((a, b) => Number(a - b)))
      assert.strictEqual(new Set(tokens).size, 10)
      assertClean(backend)
    }))

  it.effect("also when another one comes while the tokens are on their way", () =>
    scenario(function*({ backend, lock }) {
      const tokens: Array<bigint> = []
      backend.always("renew", { after: 3 })
      const fibers = yield* lineOf(lock, 2, tokens)
      yield* elapse(1)
      fibers.push(yield* start(section(lock, tokens)))
      yield* elapse(5)
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(backend.log.map(({ verb }) => verb), ["acquire", "renew", "release"])
      assert.strictEqual(new Set(tokens).size, 3)
      assertClean(backend)
    }))

  it.effect("with the tokens that were reserved by the request when a line stood already", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      const holder = yield* start(stranger.withLock("k", Effect.sleep(seconds(1))))
      const tokens: Array<bigint> = []
      const fibers = yield* Effect.forEach(Array.from({ length: 10 }), () => start(section(lock, tokens)))
      assert.strictEqual(backend.requests[1]?.spare, 63, "the request knows that others wait")
      yield* elapse(seconds(1))
      yield* Fiber.joinAll([holder, ...fibers])
      assert.deepStrictEqual(backend.log.map(({ verb }) => verb), ["acquire", "acquire", "release", "release"])
      assert.strictEqual(new Set(tokens).size, 10)
      assertClean(backend)
    }))

  it.effect("not beyond the turn: then another process has its turn", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      const order: Array<string> = []
      const work = (name: string) => Effect.andThen(Effect.sync(() => order.push(name)), Effect.sleep(8))
      const ours = yield* Effect.forEach([1, 2, 3, 4, 5], (i) => start(lock.withLock("k", work(`ours ${i}`))))
      const theirs = yield* start(stranger.withLock("k", work("theirs")))
      for (let i = 0; i < 20; i++) yield* elapse(4)
      yield* Fiber.joinAll([...ours, theirs])
      assert.deepStrictEqual(order, ["ours 1", "ours 2", "ours 3", "theirs", "ours 4", "ours 5"])
      assertClean(backend)
    }))

  it.effect("when the turn ends while the tokens are on their way, the next one is served with them", () =>
    scenario(function*({ backend, lock }) {
      const owners: Array<string> = []
      const work = lock.withLock("k", ({ owner }: Lease) => Effect.sync(() => owners.push(owner)))
      backend.always("renew", { after: 25 })
      const holder = yield* start(lock.withLock("k", Effect.sleep(1)))
      const first = yield* start(work)
      for (let i = 0; i < 5; i++) yield* elapse(5)
      // One that comes meanwhile does not end the turn either.
      const second = yield* start(work)
      for (let i = 0; i < 5; i++) yield* elapse(5)
      yield* Fiber.joinAll([holder, first, second])
      assert.deepStrictEqual(owners, backend.requests.map(({ owner }) => owner), "what was fetched serves one")
      assert.deepStrictEqual(
        backend.log.map(({ verb }) => verb),
        ["acquire", "renew", "release", "acquire", "release"]
      )
      assertClean(backend)
    }))

  it.effect("not with a turn of zero", () =>
    scenario(function*({ backend }) {
      const lock = yield* Effect.provideService(build(backend, yield* Effect.scope), LockConfig.LockDefaults, {
        turn: 0
      })
      const tokens: Array<bigint> = []
      const fibers = yield* lineOf(lock, 3, tokens)
      yield* elapse(1)
      yield* Fiber.joinAll(fibers)
      assert.strictEqual(backend.count("acquire"), 4)
      assertClean(backend)
    }))

  it.effect.each(
    [
      ["another ttl", { ttl: "10 seconds" }],
      ["another label", { owner: "other" }],
      ["no renewal", { renew: false }]
    ] as const
  )("not to one that asks for %s", ([, options]) =>
    scenario(function*({ backend, lock }) {
      const first = yield* start(lock.withLock("k", Effect.sleep(1)))
      const second = yield* start(lock.withLock("k", Effect.void, options))
      yield* elapse(1)
      yield* Fiber.joinAll([first, second])
      assert.strictEqual(backend.count("acquire"), 2)
      assertClean(backend)
    }))

  it.effect("not when a third of its ttl is not left any more", () =>
    scenario(function*({ backend }) {
      const lock = yield* Effect.provideService(build(backend, yield* Effect.scope), LockConfig.LockDefaults, {
        turn: "1 minute",
        ttl: "10 seconds",
        renew: "8 seconds"
      })
      const first = yield* start(lock.withLock("k", Effect.sleep(7000)))
      const second = yield* start(lock.withLock("k", Effect.void))
      yield* elapse(7000)
      yield* Fiber.joinAll([first, second])
      assert.strictEqual(backend.count("acquire"), 2)
      assertClean(backend)
    }))

  it.effect("releases when the renewal brings no tokens, and never asks for them again", () =>
    scenario(function*({ backend }) {
      const withoutTokens = {
        ...backend,
        renew: (...[request]: Parameters<typeof backend.renew>) => backend.renew(request, {})
      }
      const lock = yield* build(withoutTokens, yield* Effect.scope)
      const tokens: Array<bigint> = []
      yield* elapse(1)
      const fibers = yield* lineOf(lock, 3, tokens)
      yield* elapse(1)
      yield* Fiber.joinAll(fibers)
      assert.strictEqual(backend.count("renew"), 1)
      assert.strictEqual(backend.count("acquire"), 2, "the second request knew of the line")
      assertClean(backend)
    }))

  it.effect("releases when the tokens do not come, and asks for them once, however fast the backend fails", () =>
    scenario(function*({ backend, lock }) {
      const tokens: Array<bigint> = []
      backend.always("renew", { arrives: false, fails: "Unreachable" })
      const fibers = yield* lineOf(lock, 2, tokens)
      yield* elapse(1)
      yield* Fiber.joinAll(fibers)
      // The line that is left then is asked for as a line, so its grant brings enough.
      assert.deepStrictEqual(backend.log.map(({ verb }) => verb), ["acquire", "renew", "release", "acquire", "release"])
      assert.strictEqual(new Set(tokens).size, 2)
      assertClean(backend)
    }))

  it.effect("a section that was passed the hold learns of its loss", () =>
    scenario(function*({ backend, lock }) {
      const first = yield* start(lock.withLock("k", Effect.sleep(1)))
      const second = yield* start(lock.withLock("k", Effect.never))
      yield* elapse(1)
      assert.isTrue(Exit.isSuccess(ended(first, "it was passed on")))
      backend.rob("k")
      yield* settle
      assertError(errorOf(ended(second, "interrupted"), "lost"), {
        _tag: "LockLost",
        reason: "taken",
        fencingToken: 2n
      })
      assertClean(backend)
    }))

  it.effect("the last lease of a turn is told that the key was taken; the ones before it have succeeded", () =>
    scenario(function*({ backend, lock }) {
      const first = yield* start(lock.withLock("k", Effect.sleep(1)))
      const second = yield* start(lock.withLock("k", Effect.sync(() => backend.forget("k"))))
      yield* elapse(1)
      assert.isTrue(Exit.isSuccess(ended(first, "it was passed on")))
      assertError(errorOf(ended(second, "released"), "lost"), { _tag: "LockLost", reason: "taken" })
      assertClean(backend)
    }))
})

describe("linger", () => {
  const linger = { linger: "1 second" } as const

  it.effect("keeps the key for the next in this process", () =>
    scenario(function*({ backend, lock }) {
      const tokens: Array<bigint> = []
      for (let i = 0; i < 50; i++) {
        yield* section(lock, tokens, linger)
        yield* elapse(500)
      }
      assert.strictEqual(backend.count("renew"), 2, "it is renewed, however often it is used")
      assert.strictEqual(backend.count("acquire"), 1)
      assert.strictEqual(backend.count("release"), 0)
      assert.strictEqual(new Set(tokens).size, 50)
      yield* elapse(seconds(1))
      assert.strictEqual(backend.count("release"), 1, "and releases it when it was not used for so long")
      assertClean(backend)
    }))

  it.effect("ends at once when another process waits", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      yield* section(lock, [], linger)
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(stranger.withLock("k", Effect.void))))
      const theirs = yield* start(stranger.withLock("k", Effect.sleep(10)))
      const ours = yield* start(section(lock, [], linger))
      const wanted = yield* start(stranger.withLock("k", Effect.void))
      yield* elapse(10)
      yield* Fiber.joinAll([theirs, ours, wanted])
      assert.isTrue(yield* Effect.map(lock.inspect("k"), ({ holder }) => Option.isSome(holder)), "ours lingers")
      yield* stranger.withLock("k", Effect.void)
      assertClean(backend)
    }))

  it.effect("is a turn at most where the backend does not tell of waiters", () =>
    scenario(function*({ backend }) {
      const lock = yield* build({ ...backend, tellsWanted: false }, yield* Effect.scope)
      yield* section(lock, [], linger)
      yield* elapse(19)
      assert.strictEqual(backend.count("release"), 0)
      yield* elapse(1)
      assert.strictEqual(backend.count("release"), 1)
      assertClean(backend)
    }))

  it.effect("does not outlive a release by hand, and is renewed while it lasts", () =>
    scenario(function*({ backend, lock }) {
      yield* Effect.scoped(Effect.flatMap(lock.acquire("k", linger), (lease) => lease.release))
      assert.strictEqual(backend.count("release"), 1)
      yield* section(lock, [], { linger: "1 minute", ttl: "10 seconds" })
      yield* elapse(seconds(59))
      assert.isAtLeast(backend.count("renew"), 10)
      assert.isTrue(Option.isSome(yield* lock.withLockIfAvailable("k", Effect.void, { ttl: "10 seconds" })))
      yield* elapse(seconds(61))
      assertClean(backend)
    }))

  it.effect("a program that tries elsewhere finds the key held", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      yield* section(lock, [], linger)
      assert.isTrue(Option.isNone(yield* stranger.withLockIfAvailable("k", Effect.void)))
      yield* elapse(seconds(1))
      assertClean(backend)
    }))

  it.effect("ends with the layer, without an error", () =>
    scenario(function*({ backend, close, lock }) {
      yield* section(lock, [], linger)
      yield* close
      assertClean(backend)
    }))
})

describe("minHold", () => {
  const minHold = { minHold: "1 second" } as const

  it.effect("keeps the key taken, and the caller does not wait for it", () =>
    scenario(function*({ backend, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      assert.strictEqual(yield* lock.withLock("k", Effect.succeed(1), minHold), 1)
      assert.isTrue(Option.isNone(yield* stranger.withLockIfAvailable("k", Effect.void)))
      assert.isTrue(Option.isNone(yield* lock.withLockIfAvailable("k", Effect.void)))
      const waiter = yield* start(lock.withLock("k", Effect.succeed(2)))
      yield* elapse(999)
      assert.isTrue(isPending(waiter), "it is neither passed nor released")
      yield* elapse(1)
      assert.deepStrictEqual(ended(waiter, "a second after the start of the lease"), Exit.succeed(2))
      assertClean(backend)
    }))

  it.effect("applies to a failure too, is renewed, and a release by hand waives it", () =>
    scenario(function*({ backend, lock }) {
      yield* Effect.exit(lock.withLock("k", Effect.fail("mine"), { minHold: "1 minute", ttl: "9 seconds" }))
      yield* elapse(seconds(59))
      assert.isAtLeast(backend.count("renew"), 18)
      assert.strictEqual(backend.count("release"), 0)
      yield* elapse(seconds(1))
      assert.strictEqual(backend.count("release"), 1)
      yield* Effect.scoped(Effect.flatMap(lock.acquire("k", minHold), (lease) => lease.release))
      assert.strictEqual(backend.count("release"), 2)
      assertClean(backend)
    }))

  it.effect("a key that is taken while it runs is no loss", () =>
    scenario(function*({ backend, lock }) {
      assert.strictEqual(yield* lock.withLock("k", Effect.succeed(1), minHold), 1)
      backend.rob("k")
      yield* elapse(seconds(1))
      assertClean(backend)
    }))

  it.effect("outlives the layer where a grant ends by itself: the last renewal makes it last", () =>
    scenario(function*({ backend, close, lock }) {
      const stranger = yield* build(backend, yield* Effect.scope)
      yield* lock.withLock("k", Effect.void, { minHold: "10 seconds", ttl: "3 seconds" })
      yield* elapse(seconds(2))
      yield* close
      assert.strictEqual(backend.count("release"), 0)
      yield* elapse(seconds(7))
      assert.isTrue(Option.isNone(yield* stranger.withLockIfAvailable("k", Effect.void)), "it is still taken")
      yield* elapse(seconds(2))
      assert.isTrue(Option.isSome(yield* stranger.withLockIfAvailable("k", Effect.void)))
    }))

  it.effect.each(
    [
      { minHold: "2 seconds", maxHold: "1 second" },
      { minHold: "11 seconds", ttl: "10 seconds", renew: false },
      { minHold: Number.NaN },
      { minHold: "Infinity" },
      { linger: -1 }
    ] as const
  )("%s is refused", (options) =>
    scenario(function*({ backend, lock }) {
      assertError(errorOf(yield* Effect.exit(lock.withLock("k", Effect.void, options)), "refused"), {
        _tag: "InvalidLockRequest"
      })
      assert.deepStrictEqual(backend.log, [])
    }))
})
