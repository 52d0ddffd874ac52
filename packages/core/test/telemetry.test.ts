import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Logger, Metric, Option, References, Tracer } from "effect"
import { build, elapse, fixture, makeTracer, scenario, seconds, settle, start } from "./fixture.ts"

const parentOf = (span: Tracer.NativeSpan): string | undefined =>
  span.parent._tag === "Some" && span.parent.value._tag === "Span" ? span.parent.value.name : undefined

const traced = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
  const { spans, tracer } = makeTracer()
  return Effect.as(Effect.exit(Effect.provideService(effect, Tracer.Tracer, tracer)), spans)
}

const table = (spans: ReadonlyArray<Tracer.NativeSpan>) =>
  spans.map((span) => [span.name, parentOf(span), span.attributes.get("lock.fencing_token")])

describe("spans", () => {
  it.effect("of withLock: one for the whole, one for taking, one for releasing; the program is inside the whole", () =>
    scenario(function*() {
      const { lock } = yield* fixture({ name: "somewhere" })
      const program = Effect.withSpan(Effect.void, "program")
      const spans = yield* traced(Effect.withSpan(lock.withLock("k", program), "outer"))
      assert.deepStrictEqual(table(spans), [
        ["outer", undefined, undefined],
        ["Lock.withLock", "outer", "1"],
        ["Lock.acquire", "Lock.withLock", "1"],
        ["program", "Lock.withLock", undefined],
        ["Lock.release", "Lock.withLock", undefined]
      ])
      for (const span of spans.filter(({ name }) => name.startsWith("Lock."))) {
        assert.strictEqual(span.attributes.get("lock.key"), "k")
        assert.strictEqual(span.attributes.get("lock.backend"), "somewhere")
      }
      assert.isTrue(spans.every((span) => span.status._tag === "Ended"))
    }))

  it.effect("of acquire: one for taking, one for releasing", () =>
    scenario(function*({ lock }) {
      const spans = yield* traced(Effect.withSpan(Effect.scoped(lock.acquire("k")), "outer"))
      assert.deepStrictEqual(table(spans), [
        ["outer", undefined, undefined],
        ["Lock.acquire", "outer", "1"],
        ["Lock.release", "outer", undefined]
      ])
      assert.isTrue(spans.every((span) => span.status._tag === "Ended"))
    }))

  it.effect("end with what became of it", () =>
    scenario(function*({ backend, lock }) {
      backend.script("acquire", { fails: "Rejected" })
      const failed = yield* traced(lock.withLock("k", Effect.void))
      assert.deepStrictEqual(failed.map(({ name }) => name), ["Lock.withLock", "Lock.acquire"])
      assert.isTrue(failed.every(({ status }) => status._tag === "Ended" && Exit.isFailure(status.exit)))
      yield* start(Effect.andThen(lock.acquire("k"), Effect.never))
      const held = yield* traced(lock.withLockIfAvailable("k", Effect.void))
      assert.deepStrictEqual(held.map(({ name }) => name), ["Lock.withLock", "Lock.acquire"])
      assert.isTrue(held.every(({ status }) => status._tag === "Ended"))
      const { spans, tracer } = makeTracer()
      const waiting = yield* start(Effect.provideService(lock.withLock("k", Effect.void), Tracer.Tracer, tracer))
      assert.isTrue(spans.every(({ status }) => status._tag === "Started"))
      yield* Fiber.interrupt(waiting)
      assert.isTrue(spans.every(({ status }) => status._tag === "Ended" && Exit.hasInterrupts(status.exit)))
    }))

  it.effect("are none where no tracer was provided to read them", () =>
    scenario(function*({ lock }) {
      const current = Effect.map(Effect.option(Effect.currentSpan), Option.map((span) => span.name))
      assert.deepStrictEqual(yield* lock.withLock("k", current), Option.none())
      assert.deepStrictEqual(yield* Effect.withSpan(lock.withLock("k", current), "mine"), Option.some("mine"))
    }))

  it.effect("are none when tracing is off, and renewals have none", () =>
    scenario(function*({ lock }) {
      assert.deepStrictEqual(yield* traced(Effect.withTracerEnabled(lock.withLock("k", Effect.void), false)), [])
      const { spans, tracer } = makeTracer()
      const long = lock.withLock("k", Effect.sleep("1 minute"))
      yield* start(Effect.provideService(long, Tracer.Tracer, tracer))
      yield* elapse(seconds(60))
      assert.deepStrictEqual(spans.map(({ name }) => name), ["Lock.withLock", "Lock.acquire", "Lock.release"])
    }))
})

/** The metrics of one test, by name and what follows the backend. */
const metrics = Effect.map(Metric.snapshot, (snapshots) => {
  const values = new Map<string, number>()
  for (const { attributes, id, state, type } of snapshots) {
    assert.strictEqual(attributes?.["backend"], "scripted")
    const kind = attributes?.["outcome"] ?? attributes?.["reason"]
    const name = kind === undefined ? id : `${id} ${kind}`
    if (type === "Counter" || type === "Histogram") values.set(name, Number(state.count))
    if (type === "Gauge") values.set(name, Number(state.value))
    if (type === "Histogram") values.set(`${name} sum`, state.sum)
  }
  return (name: string) => values.get(name) ?? 0
})

const measured = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map())

describe("metrics", () => {
  it.effect("count requests by their outcome", () =>
    measured(scenario(function*({ backend, lock }) {
      const stranger = yield* Effect.provideService(
        build(backend, yield* Effect.scope),
        Metric.MetricRegistry,
        new Map()
      )
      yield* lock.withLock("k", lock.withLockIfAvailable("k", Effect.void))
      yield* Effect.exit(lock.withLock("k", lock.withLock("k", Effect.void)))
      yield* Effect.scoped(lock.tryAcquire("k"))
      const holder = yield* start(stranger.withLock("k", Effect.never))
      yield* lock.withLockIfAvailable("k", Effect.void)
      yield* Effect.scoped(lock.tryAcquire("k"))
      yield* Effect.exit(lock.withLock("k", Effect.void, { timeout: 0 }))
      yield* start(Effect.exit(lock.withLock("k", Effect.void, { timeout: 10 })))
      yield* elapse(10)
      yield* Fiber.interrupt(yield* start(lock.withLock("k", Effect.void)))
      yield* Fiber.interrupt(holder)
      backend.script("acquire", { fails: "Unreachable" })
      yield* Effect.exit(lock.withLock("k", Effect.void))
      const value = yield* metrics
      const outcomes = ["granted", "held", "timeout", "reentry", "failed", "interrupted"]
      assert.deepStrictEqual(outcomes.map((outcome) => value(`dlock_acquisitions ${outcome}`)), [3, 3, 1, 2, 1, 1])
      assert.strictEqual(value("dlock_held"), 0)
      assert.strictEqual(value("dlock_held_time_millis"), 3)
      assert.strictEqual(value("dlock_wait_time_millis"), 3)
    })))

  it.effect("measure how long callers waited, and how long they held", () =>
    measured(scenario(function*({ lock }) {
      yield* start(lock.withLock("k", Effect.sleep(300)))
      yield* start(lock.withLock("k", Effect.sleep(50)))
      assert.strictEqual((yield* metrics)("dlock_held"), 1)
      yield* elapse(320)
      assert.strictEqual((yield* metrics)("dlock_held"), 1)
      yield* elapse(30)
      const value = yield* metrics
      assert.strictEqual(value("dlock_held"), 0)
      assert.strictEqual(value("dlock_wait_time_millis sum"), 300)
      assert.strictEqual(value("dlock_held_time_millis sum"), 350)
    })))

  it.effect("count renewals by their outcome, and losses by their reason", () =>
    measured(scenario(function*({ backend, lock }) {
      const hold = (key: string, options = {}) => start(Effect.exit(lock.withLock(key, Effect.never, options)))
      yield* hold("taken")
      backend.script("renew", {}, { arrives: false, fails: "Unreachable" })
      yield* elapse(seconds(25))
      backend.forget("taken")
      yield* elapse(seconds(10))
      yield* hold("session")
      backend.requests[1]?.onLost("session")
      yield* hold("expired", { renew: false })
      yield* hold("maxHold", { maxHold: "5 seconds" })
      yield* elapse(seconds(40))
      const value = yield* metrics
      assert.deepStrictEqual(
        ["renewed", "failed", "refused"].map((outcome) => value(`dlock_renewals ${outcome}`)),
        [2, 1, 1]
      )
      for (const reason of ["taken", "session", "expired", "maxHold"]) {
        assert.strictEqual(value(`dlock_losses ${reason}`), 1, reason)
      }
      assert.strictEqual(value("dlock_held"), 0)
      assert.strictEqual(value("dlock_held_time_millis"), 4, "a lease that was lost is counted once")
    })))

  it.effect("count releases that failed, and those that came too late, but not the answer to a resend", () =>
    measured(scenario(function*({ backend, lock }) {
      backend.script("release", { fails: "Unreachable" }, { fails: "Timeout" })
      yield* start(lock.withLock("k", Effect.void))
      yield* elapse(seconds(1))
      assert.strictEqual((yield* metrics)("dlock_failed_releases"), 2)
      assert.strictEqual((yield* metrics)("dlock_late_releases"), 0, "the first was served, and the last said no")
      yield* Effect.exit(lock.withLock("k", Effect.sync(() => backend.forget("k"))))
      assert.strictEqual((yield* metrics)("dlock_late_releases"), 1)
      yield* Effect.exit(lock.withLock("k", Effect.andThen(Effect.sync(() => backend.rob("k")), settle)))
      assert.strictEqual((yield* metrics)("dlock_late_releases"), 1, "a loss that is known is no late release")
    })))
})

/** The lines of a log from level Info on, and the context that writes it. */
const logged = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    lines.push(`${logLevel}: ${String(message)}`)
  })
  const context = Context.make(Logger.CurrentLoggers, new Set([logger])).pipe(
    Context.add(References.MinimumLogLevel, "Info")
  )
  return { context, lines }
}

describe("logs", () => {
  it.effect("a warning for an outage before it costs the lock, and an error when it does", () => {
    const { context, lines } = logged()
    return Effect.provideContext(
      scenario(function*() {
        const { backend, lock } = yield* fixture({ commandTimeout: "25 seconds" })
        backend.script("renew", { arrives: false })
        yield* start(Effect.exit(lock.withLock("k", Effect.never)))
        yield* elapse(seconds(19))
        assert.deepStrictEqual(lines, [], "the renewal has most of its time left")
        yield* elapse(seconds(10))
        assert.lengthOf(lines, 1, "an outage is told before it costs the lock")
        assert.match(lines[0] ?? "", /^Warn: Lock "k" is not renewed yet: no answer, and it is lost in 9\d{3} ms$/)
        yield* elapse(seconds(1))
        assert.deepStrictEqual(lines.slice(1), [
          "Error: Lock \"k\" was lost (token 1): it was not renewed before its time limit passed"
        ])
      }),
      context
    )
  })

  it.effect("an error for a loss, a warning for a renewal or release that fails, debug for the ordinary", () => {
    const { context, lines } = logged()
    return Effect.provideContext(
      scenario(function*({ backend, lock }) {
        yield* lock.withLock("k", Effect.void)
        yield* start(lock.withLock("k", Effect.sleep("30 seconds")))
        yield* elapse(seconds(30))
        assert.deepStrictEqual(lines, [])
        backend.script("renew", { fails: "Unreachable" })
        backend.script("release", { fails: "Rejected" })
        yield* start(lock.withLock("k", Effect.sleep("12 seconds")))
        yield* elapse(seconds(12))
        yield* elapse(seconds(1))
        assert.deepStrictEqual(lines, [
          "Warn: Lock \"k\" is not renewed yet: scripted could not renew: the server is unreachable (as scripted)",
          "Warn: Lock \"k\" is not released yet: scripted could not release: the server refused (as scripted)"
        ])
        lines.length = 0
        yield* start(Effect.exit(lock.withLock("k", Effect.never)))
        backend.rob("k")
        yield* settle
        assert.deepStrictEqual(lines, ["Error: Lock \"k\" was lost (token 4): the backend no longer has it as holder"])
        lines.length = 0
        backend.script("renew", { dies: "defect" })
        yield* start(lock.withLock("k", Effect.sleep("12 seconds")))
        yield* elapse(seconds(12))
        assert.strictEqual(lines.length, 1, "a backend that dies is told")
        yield* elapse(seconds(1))
        lines.length = 0
        const talkative = yield* Effect.provideService(
          build(backend, yield* Effect.scope),
          References.MinimumLogLevel,
          "Debug"
        )
        yield* talkative.withLock("k", Effect.void, { owner: "me" })
        const owner = backend.requests[backend.requests.length - 1]?.owner
        assert.deepStrictEqual(lines, [
          `Debug: Lock "k" is held by ${owner}`,
          `Debug: Lock "k" is released by ${owner}`
        ])
      }),
      context
    )
  })
})
