/**
 * The subscription, over a client that answers at once.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Scheduler } from "effect"
import { TestClock } from "effect/testing"
import type { Connection, Failure, RedisClient, Subscriber } from "../src/internal/RedisClient.ts"
import * as RedisWakeUps from "../src/internal/RedisWakeUps.ts"

/** A server whose connections for messages can be broken, and which can refuse them. */
const setup = Effect.gen(function*() {
  const commands: Array<string> = []
  const listeners: Array<{ readonly onMessage: (message: string) => void, readonly onClose: () => void }> = []
  let refusal: Failure | undefined
  let receivers = 1
  const connection: Connection = {
    connect: Effect.void,
    ready: Effect.void,
    wire: () => undefined,
    epoch: () => 1,
    now: () => 0n,
    call: () => assert.fail("no script is called"),
    send: ({ args, command }) =>
      Effect.suspend(() => {
        commands.push(command)
        if (command === "subscribe" && refusal !== undefined) return Effect.fail(refusal)
        return Effect.succeed({ reply: command === "pubsub" ? [args[1], receivers] : "OK", sentAt: 0n })
      })
  }
  const subscriber: Subscriber = {
    ...connection,
    listen: (onMessage, onClose) => Effect.sync(() => void listeners.push({ onMessage, onClose }))
  }
  const client: RedisClient = {
    ...connection,
    keyPrefix: "",
    masterOf: () => Effect.die("not here"),
    subscriber: Effect.succeed(subscriber)
  }
  const wakeUps = yield* RedisWakeUps.make(client, {
    channelPrefix: "app:",
    limit: Duration.seconds(5),
    countReceivers: true
  })
  return {
    wakeUps,
    subscriptions: () => commands.filter((command) => command === "subscribe").length,
    latest: () => listeners.at(-1) ?? assert.fail("nobody listens"),
    refuse: (failure: Failure | undefined) => {
      refusal = failure
    },
    hear: (count: number) => {
      receivers = count
    }
  }
})

const settle = TestClock.adjust("300 millis")

describe("the subscription", () => {
  it.effect("is opened also when whoever needs it first is interrupted, at whichever step", () =>
    Effect.gen(function*() {
      const parent = yield* Scheduler.Scheduler
      let interruptions = 0
      for (let step = 1; step < 40; step++) {
        const { wakeUps } = yield* setup
        const first = yield* Effect.forkChild(Effect.yieldNow.pipe(Effect.andThen(wakeUps.subscribed)))
        let operations = 0
        const scheduler: Scheduler.Scheduler = {
          executionMode: parent.executionMode,
          makeDispatcher: () => parent.makeDispatcher(),
          shouldYield: (fiber) => {
            if (fiber !== first || ++operations !== step) return parent.shouldYield(fiber)
            interruptions++
            first.interruptUnsafe()
            return true
          }
        }
        first.setContext(Context.add(first.context, Scheduler.Scheduler, scheduler))
        yield* Fiber.await(first)
        const second = yield* Effect.forkChild(wakeUps.subscribed, { startImmediately: true })
        yield* TestClock.adjust("5 seconds")
        const exit = yield* Fiber.await(second)
        assert.isTrue(Exit.isSuccess(exit), `interrupted at step ${step}, it is opened for the next`)
      }
      assert.isAbove(interruptions, 5, "the steps are really met")
    }))

  it.effect("tells a waiter of its key, also when the message comes before it sleeps", () =>
    Effect.gen(function*() {
      const { latest, wakeUps } = yield* setup
      yield* wakeUps.subscribed
      const waiter = wakeUps.register("me")
      latest().onMessage("somebody else")
      latest().onMessage("me")
      assert.isTrue(yield* waiter.sleep(Duration.seconds(1)))
      const again = yield* Effect.forkChild(waiter.sleep(Duration.seconds(1)), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isFalse(yield* Fiber.join(again), "one message wakes once")
    }))

  it.effect("is opened again when it breaks, and everybody looks", () =>
    Effect.gen(function*() {
      const { latest, subscriptions, wakeUps } = yield* setup
      yield* wakeUps.subscribed
      const waiter = wakeUps.register("me")
      latest().onClose()
      assert.isFalse(wakeUps.isSubscribed())
      const sleeping = yield* Effect.forkChild(waiter.sleep(Duration.hours(1)), { startImmediately: true })
      yield* settle
      assert.isFalse(yield* Fiber.join(sleeping), "woken, but not handed the key")
      assert.isTrue(wakeUps.isSubscribed())
      assert.strictEqual(subscriptions(), 2)
    }))

  it.effect("that is refused is an error at once, and tried again", () =>
    Effect.gen(function*() {
      const { refuse, wakeUps } = yield* setup
      refuse({ _tag: "Failed", cause: Object.assign(new Error("NOPERM this user"), { name: "ReplyError" }) })
      assert.strictEqual((yield* Effect.flip(wakeUps.subscribed)).reason, "Unauthorized")
      refuse(undefined)
      yield* settle
      yield* wakeUps.subscribed
    }))

  it.effect("that can not be had is an error when the time is over", () =>
    Effect.gen(function*() {
      const { refuse, wakeUps } = yield* setup
      refuse({ _tag: "NotConnected", cause: new Error("connect ECONNREFUSED") })
      const waiting = yield* Effect.forkChild(Effect.flip(wakeUps.subscribed), { startImmediately: true })
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(waiting)).reason, "Unreachable")
    }))

  it.effect("that the server does not know of is replaced when a message does not come", () =>
    Effect.gen(function*() {
      const { hear, subscriptions, wakeUps } = yield* setup
      yield* wakeUps.subscribed
      yield* wakeUps.doubt
      yield* settle
      assert.strictEqual(subscriptions(), 1, "it is fine")
      hear(0)
      yield* wakeUps.doubt
      yield* settle
      assert.strictEqual(subscriptions(), 2)
      assert.isTrue(wakeUps.isSubscribed())
    }))
})
