/** What a hostile review found: each of these was wrong once. */
import { type Lease, LockConfig, MemoryLock } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Logger, Metric, References, Schedule, Scope } from "effect"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import {
  assertClean,
  assertError,
  build,
  elapse,
  ended,
  errorOf,
  fixture,
  isPending,
  scenario,
  settle,
  start
} from "./fixture.ts"

/** Collects what is logged. */
const logged = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    lines.push(`${logLevel}: ${String(message)}`)
  })
  return {
    lines,
    context: Context.make(Logger.CurrentLoggers, new Set([logger])).pipe(
      Context.add(References.MinimumLogLevel, "Info")
    )
  }
}

describe("success means: held to the end, and the release was ours", () => {
  it.effect("a key that was taken while the section ran is LockLost, and logged", () => {
    const { context, lines } = logged()
    return Effect.provideContext(
      scenario(function*({ backend, lock }) {
        const section = yield* start(lock.withLock("k", Effect.sync(() => backend.forget("k"))))
        assertError(errorOf(ended(section, "released"), "lost"), { _tag: "LockLost", reason: "taken" })
        assert.deepStrictEqual(lines, ["Error: Lock \"k\" was lost (token 1): the backend no longer has it as holder"])
        const scope = yield* Scope.make()
        const lease = yield* Scope.provide(lock.acquire("other"), scope)
        backend.forget("other")
        assertError(yield* Effect.flip(lease.release), { _tag: "LockLost", reason: "taken" })
        yield* Scope.close(scope, Exit.void)
        assertClean(backend)
      }),
      context
    )
  })

  it.effect("a release that is answered after the deadline proves nothing", () =>
    scenario(function*({ backend, lock }) {
      backend.always("release", { before: 130 })
      const section = yield* start(lock.withLock("k", Effect.as(Effect.sleep(20), 1), { ttl: 100, renew: false }))
      yield* elapse(150)
      assert.deepStrictEqual(ended(section, "released"), Exit.succeed(1))
      assertClean(backend)
    }))
})

describe("a lease", () => {
  it.effect("prints as its key, owner, backend and token, and nothing else", () =>
    Effect.gen(function*() {
      class Password extends Context.Service<Password, { readonly value: string }>()("Password") {}
      const { lock } = yield* fixture()
      const lease = yield* Effect.provideService(lock.acquire("k"), Password, { value: "hunter2" })
      for (const text of [inspect(lease, { depth: 20 }), JSON.stringify(lease), String(lease)]) {
        assert.notInclude(text, "hunter2")
        assert.isBelow(text.length, 300)
        for (const part of ["k", lease.owner, "scripted", "1"]) assert.include(text, part)
      }
    }))

  it.effect("is whole when it is copied", () =>
    scenario(function*({ backend, lock }) {
      const lease: Lease = { ...(yield* lock.acquire("k")) }
      assert.isTrue(yield* lease.isHeld)
      yield* lease.renew
      assert.strictEqual(yield* lease.guard(Effect.succeed(1)), 1)
      yield* lease.release
      assert.isFalse(yield* lease.isHeld)
      assertClean(backend)
    }))

  it.effect("guards work: it is interrupted when the lease is lost, and fails with LockLost", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k")
      const events: Array<string> = []
      const work = Effect.onInterrupt(
        Effect.never,
        () => Effect.andThen(Effect.sleep(10), Effect.sync(() => events.push("interrupted")))
      )
      const guarded = yield* start(lease.guard(work))
      const interrupted = yield* start(lease.guard(Effect.never))
      yield* Fiber.interrupt(interrupted)
      backend.rob("k")
      yield* settle
      assert.isTrue(isPending(guarded), "it waits for the end of the work")
      yield* elapse(10)
      assertError(errorOf(ended(guarded, "lost"), "lost"), { _tag: "LockLost", reason: "taken" })
      assert.deepStrictEqual(events, ["interrupted"])
      const late = yield* Effect.exit(lease.guard(Effect.die("run")))
      assertError(errorOf(late, "lost before"), { _tag: "LockLost", reason: "taken" })
      const failing = yield* lock.acquire("other")
      assert.strictEqual(yield* Effect.flip(failing.guard(Effect.fail("mine"))), "mine")
    }))

  it.effect("that was released, or whose layer is closed, is not taken: renew says closed", () =>
    scenario(function*({ backend, close, lock }) {
      const lease = yield* lock.acquire("k")
      yield* lease.release
      assertError(yield* Effect.flip(lease.renew), { _tag: "LockLost", reason: "closed" })
      assertError(errorOf(yield* Effect.exit(lease.guard(Effect.void)), "released"), { reason: "closed" })
      const open = yield* lock.acquire("k")
      yield* close
      assertError(yield* Effect.flip(open.renew), { _tag: "LockLost", reason: "closed" })
      assert.strictEqual(backend.count("renew"), 0)
      assertClean(backend)
    }))

  it.effect("that was acquired and lost frees the local line as soon as its release is answered", () =>
    scenario(function*({ backend, lock }) {
      yield* lock.acquire("k")
      const next = yield* start(lock.withLock("k", Effect.succeed(2)))
      backend.rob("k")
      yield* settle
      assert.deepStrictEqual(ended(next, "not at the ttl"), Exit.succeed(2))
    }))
})

describe("grants", () => {
  it.effect("that are over on arrival are asked for at once twice, then with pauses, and in the end not at all", () => {
    const { context, lines } = logged()
    return Effect.provideContext(
      scenario(function*({ backend, lock }) {
        backend.always("acquire", { after: 15 })
        const section = yield* start(lock.withLock("k", Effect.die("run"), { ttl: 10 }))
        yield* Effect.repeat(elapse(5), { times: 3000 })
        const error = errorOf(ended(section, "it does not go on for ever"), "too late")
        assertError(error, { _tag: "LockBackendError", reason: "Timeout" })
        assert.match(String(error), /ttl is 10 ms, and the last answer took 15 ms/)
        assert.strictEqual(backend.count("acquire"), 8)
        const times = backend.log.filter(({ verb }) => verb === "acquire").map(({ at }) => at)
        const gaps = times.slice(1).map((at, i) => at - (times[i] ?? 0))
        assert.isTrue(gaps.slice(0, 2).every((gap) => gap < 30), `at once twice: ${gaps}`)
        assert.isTrue(gaps.slice(2).every((gap, i) => gap >= 100 * 2 ** i), `then with pauses: ${gaps}`)
        assert.include(lines.join("\n"), "was granted too late: the ttl is 10 ms, and the answer took 15 ms")
        assertClean(backend)
      }),
      context
    )
  })

  it.effect.each(
    [
      { validFrom: Number.NaN },
      { ttl: Number.POSITIVE_INFINITY },
      { ttl: -1 },
      { tokens: undefined },
      { tokens: { first: 1, spare: 0 } },
      { tokens: { first: 1n, spare: -1 } }
    ]
  )("that are malformed are an error, and do not jam the key: %s", (wrong) =>
    scenario(function*({ backend }) {
      let isBroken = true
      const broken = {
        ...backend,
        acquire: (request: Parameters<typeof backend.acquire>[0]) =>
          Effect.map(
            backend.acquire(request),
            (grant) => isBroken ? Object.assign({}, grant, wrong) : grant
          )
      }
      const lock = yield* build(broken, yield* Effect.scope)
      const error = errorOf(yield* Effect.exit(lock.withLock("k", Effect.die("run"))), "malformed")
      assertError(error, { _tag: "LockBackendError", reason: "Protocol" })
      assert.strictEqual(backend.count("release"), 1)
      isBroken = false
      assert.strictEqual(yield* lock.withLock("k", Effect.succeed(1)), 1)
      assertClean(backend)
    }))

  it.effect("from the future are good from now on", () =>
    scenario(function*({ backend }) {
      const ahead = {
        ...backend,
        acquire: (request: Parameters<typeof backend.acquire>[0]) =>
          Effect.map(backend.acquire(request), (grant) => ({ ...grant, validFrom: grant.validFrom + 1e12 }))
      }
      const lock = yield* build(ahead, yield* Effect.scope)
      const lease = yield* lock.acquire("k", { ttl: "10 seconds", renew: false })
      yield* elapse(9_897)
      assert.isTrue(yield* lease.isHeld)
      yield* elapse(1)
      assert.isFalse(yield* lease.isHeld)
    }))
})

describe("the end of a program", () => {
  it.effect("is no error in the log and no loss in the metrics", () => {
    const { context, lines } = logged()
    return Effect.provideContext(
      Effect.gen(function*() {
        const { close, lock } = yield* fixture()
        yield* lock.acquire("k")
        const section = yield* start(lock.withLock("other", Effect.never))
        yield* close
        assertError(errorOf(ended(section, "closed"), "closed"), { _tag: "LockLost", reason: "closed" })
        assert.deepStrictEqual(lines, [])
        const losses = (yield* Metric.snapshot).filter(({ id }) => id === "dlock_losses")
        assert.isTrue(losses.every(({ state }) => "count" in state && Number(state.count) === 0))
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())),
      context
    )
  })
})

describe("time", () => {
  it.effect("may pass by days while a lease is held", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k")
      yield* TestClock.adjust("2 days")
      assert.isTrue(yield* lease.isHeld)
      assert.isBelow(backend.count("renew"), 2 * 24 * 360 + 10)
    }), 120_000)
})

describe("a section", () => {
  it.effect("sees which fiber interrupted it", () =>
    scenario(function*({ lock }) {
      const seen: Array<number> = []
      const work = Effect.onInterrupt(Effect.never, (by) => Effect.sync(() => seen.push(...by)))
      const section = yield* start(lock.withLock("k", work))
      yield* start(Effect.withFiber((fiber) => {
        seen.push(fiber.id)
        return Fiber.interrupt(section)
      }))
      assert.strictEqual(seen[1], seen[0])
    }))

  it.effect("ends the children that it forked", () =>
    scenario(function*({ backend, lock }) {
      const ends: Array<string> = []
      const child = Effect.onInterrupt(Effect.never, () => Effect.sync(() => ends.push("child")))
      yield* lock.withLock("k", Effect.forkChild(child, { startImmediately: true }))
      assert.deepStrictEqual(ends, ["child"])
      assertClean(backend)
    }))

  it.effect("started a fiber that outlives it, which is an ordinary asker then", () =>
    scenario(function*({ backend, lock }) {
      const inner = lock.withLock("k", Effect.succeed(2))
      const results: Array<unknown> = []
      yield* lock.withLock(
        "k",
        Effect.gen(function*() {
          results.push(yield* Effect.exit(inner))
          yield* Effect.forkDetach(
            Effect.flatMap(Effect.delay(inner, 10), (value) => Effect.sync(() => results.push(value)))
          )
        })
      )
      yield* elapse(10)
      assertError(errorOf(Exit.isExit(results[0]) ? results[0] : assert.fail(), "inside"), { reason: "reentry" })
      assert.strictEqual(results[1], 2)
      assertClean(backend)
    }))
})

describe("a key that a fiber holds in a scope", () => {
  it.effect("is reentry to the same fiber in the same scope, not a hang", () =>
    scenario(function*({ backend, lock }) {
      const lease = yield* lock.acquire("k")
      for (const ask of [Effect.asVoid(lock.acquire("k")), lock.withLock("k", Effect.void)]) {
        assertError(yield* Effect.flip(ask), { _tag: "LockUnavailable", reason: "reentry" })
      }
      const other = yield* start(lock.withLock("k", Effect.succeed(1)))
      assert.isTrue(isPending(other), "another fiber waits")
      yield* lease.release
      yield* settle
      assert.deepStrictEqual(ended(other, "its turn"), Exit.succeed(1))
      yield* lock.acquire("k")
      yield* settle
      assert.strictEqual(backend.count("acquire"), 2, "after the release it may ask again")
    }))
})

describe("options", () => {
  it.effect.each(
    [
      { ttl: Number.NaN },
      { timeout: Number.NaN },
      { timeout: -5 },
      { ttl: "Infinity" },
      { renew: Number.NaN },
      { maxHold: -1 },
      { owner: "a/b" },
      { owner: "a\nb" },
      { retry: 3 },
      { retry: "twice" }
    ] as ReadonlyArray<object>
  )("%s are refused in words", (wrong) =>
    scenario(function*({ backend, lock }) {
      const exit = yield* Effect.exit(lock.withLock("k", Effect.void, { ...wrong }))
      assertError(errorOf(exit, "refused"), { _tag: "InvalidLockRequest" })
      assert.deepStrictEqual(backend.log, [])
    }))

  it.effect("an async function is not a program", () =>
    scenario(function*({ backend, lock }) {
      // @ts-expect-error: so a program in plain JavaScript would do it
      const program: Effect.Effect<number, unknown> = lock.withLock("k", () => Promise.resolve(1))
      const error = errorOf(yield* Effect.exit(program), "refused")
      assertError(error, { _tag: "InvalidLockRequest" })
      assertClean(backend)
    }))

  it.effect("retry: false stands in line, also where a schedule is configured", () =>
    scenario(function*({ backend }) {
      const lock = yield* Effect.provideService(
        build(backend, yield* Effect.scope),
        LockConfig.LockDefaults,
        { retry: Schedule.spaced("1 second") }
      )
      yield* lock.withLock("k", Effect.void, { retry: false })
      assert.strictEqual(backend.count("acquire"), 1)
      yield* lock.withLock("k", Effect.void)
      assert.strictEqual(backend.count("tryAcquire"), 1)
    }))
})

describe("whatever throws after the grant", () => {
  it.effect("does not keep the key", () =>
    scenario(function*({ backend, lock }) {
      const logger = Logger.make(() => {
        throw new Error("the disk is full")
      })
      const talkative = yield* build(backend, yield* Effect.scope).pipe(
        Effect.provideService(Logger.CurrentLoggers, new Set([logger])),
        Effect.provideService(References.MinimumLogLevel, "Debug")
      )
      yield* Effect.exit(talkative.withLock("k", Effect.void))
      assert.strictEqual(yield* lock.withLock("k", Effect.succeed(1)), 1)
      assertClean(backend)
    }))
})

describe("inspect, revoke and ping", () => {
  it.effect("tell the holder and the waiters, and take a hold away from exactly its owner", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryLock.make
      const lock = yield* build(backend, yield* Effect.scope)
      const section = yield* start(lock.withLock("k", Effect.never, { owner: "worker 7" }))
      yield* lock.ping
      const { holder, waiting } = yield* lock.inspect("k")
      assert.deepStrictEqual(waiting, [])
      const owner = holder._tag === "Some" ? holder.value.owner ?? "" : assert.fail()
      assert.match(owner, /^worker 7\//)
      assert.isFalse(yield* lock.revoke("k", "somebody else"))
      assert.isTrue(yield* lock.revoke("k", owner))
      yield* settle
      assertError(errorOf(ended(section, "lost"), "lost"), { _tag: "LockLost", reason: "taken" })
      assertError(yield* Effect.flip(lock.inspect("")), { _tag: "InvalidLockRequest" })
    }))
})
