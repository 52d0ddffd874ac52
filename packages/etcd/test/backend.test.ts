import type { LockRequest } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Metric, Scheduler, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as Backend from "../src/internal/backend.ts"
import * as FakeEtcd from "./FakeEtcd.ts"

const attempt = (key: string): LockRequest => ({
  key,
  owner: `test/${crypto.randomUUID()}`,
  ttl: 30_000,
  // Others in the process wait, so a release waits for the next request.
  spare: 1,
  onLost: () => {},
  onWanted: () => {}
})

const noop = (): void => {}

const settle = Effect.forEach(Array.from({ length: 12 }), () => Effect.yieldNow, { discard: true })

type Disturbance = "interruption" | "broken streams"

interface Play {
  readonly disturbance: Disturbance
  /** The key is released while the other waits for it. */
  readonly isHandedOver: boolean
  /** The waiter asks right behind that release, as core does, so that both are one transaction. */
  readonly isTogether?: boolean
  /** Another client writes to the store all the time. */
  readonly isBusy: boolean
}

/**
 * One waits for another, is disturbed at an operation, and releases, as does the other; then nothing may be left.
 * Answers how many operations there were.
 */
const disturbedAt = Effect.fnUntraced(
  function*(operation: number, { disturbance, isBusy, isHandedOver, isTogether = false }: Play) {
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
      const line = yield* Scope.provide(Backend.make(server.client, { root: "", commandTimeout: 5000 }), scope)
      const [zeroth, first, second] = [attempt("k"), attempt("k"), attempt("k")]
      yield* line.acquire(zeroth)
      yield* line.release(zeroth)
      yield* Effect.andThen(TestClock.adjust("1 second"), settle)
      const idle = fibers.active
      yield* line.acquire(first)
      const run = Effect.runForkWith(yield* Effect.context<never>())
      const releasing = isTogether ? [yield* Effect.forkChild(line.release(first), { startImmediately: true })] : []
      const waiting = yield* Effect.forkChild(
        Effect.withFiber((fiber) => {
          waiter = fiber
          disturb = () => {
            if (disturbance === "broken streams") return server.breakStreams()
            // As core does.
            fiber.interruptUnsafe()
            run(line.release(second))
          }
          return line.acquire(second)
        }),
        { startImmediately: isTogether }
      )
      yield* settle
      if (isTogether) assert.deepStrictEqual(yield* Fiber.joinAll(releasing), ["released"])
      else if (isHandedOver) yield* line.release(first)
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
      if (!isTogether) yield* Effect.forkChild(line.release(first))
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
  }
)

const plays: ReadonlyArray<readonly [string, Play]> = [
  [
    "interrupted in the transaction that hands over",
    { disturbance: "interruption", isHandedOver: true, isTogether: true, isBusy: false }
  ],
  ["interrupted as the key is handed over", { disturbance: "interruption", isHandedOver: true, isBusy: false }],
  ["interrupted so in a busy store", { disturbance: "interruption", isHandedOver: true, isBusy: true }],
  ["interrupted while the key is held", { disturbance: "interruption", isHandedOver: false, isBusy: false }],
  ["interrupted so in a busy store", { disturbance: "interruption", isHandedOver: false, isBusy: true }],
  ["left by its watches", { disturbance: "broken streams", isHandedOver: true, isBusy: false }],
  ["left by its watches in a busy store", { disturbance: "broken streams", isHandedOver: true, isBusy: true }]
]

describe("backend", () => {
  it.effect.each(plays)("a waiter that is %s, at any operation, leaves nothing", ([, play]) =>
    Effect.gen(function*() {
      let last = 1
      for (let operation = 1; operation <= last; operation++) {
        last = Math.max(last, yield* disturbedAt(operation, play))
      }
      assert.isAbove(last, 30, "there are operations to be disturbed at")
    }), 60_000)

  it.effect("a loss that is pushed is looked up before it is believed", () =>
    Effect.gen(function*() {
      const server = yield* FakeEtcd.make(false)
      const line = yield* Backend.make(server.client, { root: "", commandTimeout: 5000 })
      const losses: Array<string> = []
      const held = { ...attempt("k"), onLost: (reason: string) => void losses.push(reason) }
      const waiter = attempt("k")
      yield* line.acquire(held)
      yield* Effect.forkChild(line.acquire(waiter))
      yield* Effect.andThen(TestClock.adjust("1 second"), settle)
      assert.isAtLeast(server.watched(), 2, "holder and waiter are watched")
      server.mixUp()
      yield* Effect.andThen(TestClock.adjust("1 second"), settle)
      assert.deepStrictEqual(losses, [], "the key is there")
      assert.strictEqual(server.places().length, 2, "the waiter keeps its place")
      assert.strictEqual(yield* line.release(held), "released")
    }))

  /** A key that is held, and a waiter whose watch fares so. */
  const waiting = Effect.fnUntraced(function*(fate: "unanswered" | "refused") {
    const server = yield* FakeEtcd.make(false)
    const line = yield* Backend.make(server.client, { root: "", commandTimeout: 5000 })
    const [held, waiter] = [attempt("k"), attempt("k")]
    yield* line.acquire(held)
    yield* Effect.andThen(TestClock.adjust("1 second"), settle)
    server.place(fate)
    const fiber = yield* Effect.forkChild(line.acquire(waiter))
    const pass = (seconds: number) =>
      Effect.forEach(Array.from({ length: seconds }), () => Effect.andThen(TestClock.adjust("1 second"), settle))
    yield* pass(20)
    assert.isUndefined(fiber.pollUnsafe(), "it waits on, however long its watch is not placed")
    return { fiber, held, line, pass, server, waiter }
  })

  for (const fate of ["unanswered", "refused"] as const) {
    it.effect(`a waiter whose watches are ${fate} waits on, asks now and then, and is served`, () =>
      Effect.gen(function*() {
        const { fiber, held, line, pass, server, waiter } = yield* waiting(fate)
        const asked = server.asked()
        yield* pass(20)
        assert.isBelow(server.asked() - asked, 25, "no more than about one question a second")
        assert.strictEqual(yield* line.release(held), "released")
        yield* pass(6)
        yield* Fiber.join(fiber)
        assert.strictEqual(yield* line.release(waiter), "released")
      }))

    it.effect(`a waiter whose watches were ${fate} is served at once when they are placed again`, () =>
      Effect.gen(function*() {
        const { fiber, held, line, pass, server, waiter } = yield* waiting(fate)
        server.place("placed")
        yield* pass(6)
        assert.strictEqual(yield* line.release(held), "released")
        yield* settle
        yield* Fiber.join(fiber)
        assert.strictEqual(yield* line.release(waiter), "released")
      }))
  }
})
