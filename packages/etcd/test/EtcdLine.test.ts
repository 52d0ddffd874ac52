import type { LockRequest } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Metric, Scheduler, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as EtcdLine from "../src/internal/EtcdLine.ts"
import * as FakeEtcd from "./FakeEtcd.ts"

const attempt = (key: string): LockRequest => ({
  key,
  owner: `test/${crypto.randomUUID()}`,
  ttl: Duration.seconds(30),
  onLost: () => {}
})

const noop = (): void => {}

const settle = Effect.forEach(Array.from({ length: 40 }), () => Effect.yieldNow, { discard: true })

type Disturbance = "interruption" | "broken streams"

interface Play {
  readonly disturbance: Disturbance
  /** The key is released while the other waits for it. */
  readonly isHandedOver: boolean
  /** Somebody else writes to the store all the time. */
  readonly isBusy: boolean
}

/**
 * One waits for another, is disturbed at an operation, and gives back, as does the other; then nothing may be left.
 * Answers how many operations there were.
 */
const disturbedAt = Effect.fnUntraced(function*(operation: number, { disturbance, isBusy, isHandedOver }: Play) {
  const fibers = { active: 0 }
  const census: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => void fibers.active++,
    recordFiberEnd: () => void fibers.active--
  }
  const parent = yield* Scheduler.Scheduler
  let operations = 0
  let waiter: Fiber.Fiber<unknown, unknown> | undefined
  let disturb = noop
  const test = yield* Effect.withFiber(Effect.succeed)
  const scheduler: Scheduler.Scheduler = {
    executionMode: parent.executionMode,
    makeDispatcher: () => parent.makeDispatcher(),
    shouldYield: (fiber) => {
      if (waiter === undefined || fiber === test || ++operations !== operation) return parent.shouldYield(fiber)
      queueMicrotask(disturb)
      return true
    }
  }
  const server = yield* FakeEtcd.make(isBusy)
  const scope = yield* Scope.make()
  const world = Effect.gen(function*() {
    const line = yield* Scope.provide(EtcdLine.make(server.client, { root: "", commandTimeout: 5000 }), scope)
    const [zeroth, first, second] = [attempt("k"), attempt("k"), attempt("k")]
    yield* line.acquire(zeroth)
    yield* line.release(zeroth)
    yield* Effect.andThen(TestClock.adjust("1 second"), settle)
    const idle = fibers.active
    yield* line.acquire(first)
    const run = Effect.runForkWith(yield* Effect.context<never>())
    const waiting = yield* Effect.forkChild(Effect.withFiber((fiber) => {
      waiter = fiber
      disturb = () => {
        if (disturbance === "broken streams") return server.breakStreams()
        // As core does.
        fiber.interruptUnsafe()
        run(line.release(second))
      }
      return line.acquire(second)
    }))
    yield* settle
    if (isHandedOver) yield* line.release(first)
    yield* settle
    const when = `${disturbance} at operation ${operation}`
    if (disturbance === "broken streams") {
      yield* Effect.andThen(TestClock.adjust("1 second"), settle)
      assert.isDefined(waiting.pollUnsafe(), `${when}: the waiter is served`)
    } else if (!isHandedOver) {
      yield* Effect.forkChild(Fiber.interrupt(waiting))
    }
    yield* settle
    yield* Effect.forkChild(line.release(second))
    yield* Effect.forkChild(line.release(first))
    for (let i = 0; i < 4; i++) yield* Effect.andThen(TestClock.adjust("1 second"), settle)
    assert.deepStrictEqual(server.places(), [], `${when}: no key is left`)
    assert.strictEqual(server.watched(), 0, `${when}: no watch is left`)
    assert.strictEqual(fibers.active, idle, `${when}: no fiber is left`)
    const next = attempt("k")
    yield* line.acquire(next)
    yield* line.release(next)
  })
  const context = Context.make(Scheduler.Scheduler, scheduler).pipe(Context.add(Metric.FiberRuntimeMetrics, census))
  yield* Effect.provideContext(world, context)
  yield* Scope.close(scope, Exit.void)
  return operations
})

const plays: ReadonlyArray<readonly [string, Play]> = [
  ["interrupted as the key is handed over", { disturbance: "interruption", isHandedOver: true, isBusy: false }],
  ["interrupted so in a busy store", { disturbance: "interruption", isHandedOver: true, isBusy: true }],
  ["interrupted while the key is held", { disturbance: "interruption", isHandedOver: false, isBusy: false }],
  ["interrupted so in a busy store", { disturbance: "interruption", isHandedOver: false, isBusy: true }],
  ["left by its watches", { disturbance: "broken streams", isHandedOver: true, isBusy: false }],
  ["left by its watches in a busy store", { disturbance: "broken streams", isHandedOver: true, isBusy: true }]
]

describe("EtcdLine", () => {
  it.effect.each(plays)("a waiter that is %s, at any operation, leaves nothing", ([, play]) =>
    Effect.gen(function*() {
      let last = 1
      for (let operation = 1; operation <= last; operation++) {
        last = Math.max(last, yield* disturbedAt(operation, play))
      }
      assert.isAbove(last, 30, "there are operations to be disturbed at")
    }), 60_000)
})
