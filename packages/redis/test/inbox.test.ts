/**
 * The subscription, over a client that answers at once.
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Scheduler } from "effect"
import { TestClock } from "effect/testing"
import * as attempts from "../src/internal/attempts.ts"
import type { Connection } from "../src/internal/client.ts"
import type { Failure } from "../src/internal/errors.ts"
import * as holds from "../src/internal/holds.ts"
import * as inboxes from "../src/internal/inbox.ts"
import type { Listener } from "../src/internal/messages.ts"
import * as scripts from "../src/internal/scripts.ts"
import * as subscription from "../src/internal/subscription.ts"
import * as support from "./support.ts"

const channel = "app:dlock-wake/me"

/** A process' inbox over a server that answers as it is told, and what was asked for. */
const setup = Effect.gen(function*() {
  const commands: Array<string> = []
  const listeners: Array<Listener> = []
  let refusal: Failure | undefined
  let receivers = 1
  const { connection: other } = support.setup(() => assert.fail("no script is called"))
  const send = (command: string) =>
    Effect.suspend(() => {
      commands.push(command)
      return command === "subscribe" && refusal !== undefined ? Effect.fail(refusal) : Effect.void
    })
  const connection: Connection = {
    ...other,
    send: (command) => Effect.as(send(command), { reply: [channel, receivers], sentAt: 0 }),
    subscribe: (listener) =>
      Effect.sync(() => {
        listeners.push(listener)
        return { subscribe: () => send("subscribe"), unsubscribe: () => send("unsubscribe"), ping: send("ping") }
      })
  }
  const means = { connection, scripts: scripts.make(true), channel, limit: 5000, clockAhead: 0 }
  const own = yield* subscription.make(connection)
  const held = holds.make(means, own.fork)
  const inbox = inboxes.make({
    subscription: own,
    channel,
    holds: held,
    countsReceivers: true,
    limit: 5000,
    onLive: () => {}
  })
  const latest = () => listeners.at(-1) ?? assert.fail("there is no listener")
  return {
    inbox,
    held,
    live: inboxes.live(inbox, 5000),
    subscriptions: () => commands.filter((command) => command === "subscribe").length,
    tell: (message: string) => latest().onMessage(channel, message),
    close: () => latest().onClose(),
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
  it.effect("is opened also when the first that needs it is interrupted, at any step", () =>
    Effect.gen(function*() {
      const parent = yield* Scheduler.Scheduler
      let interruptions = 0
      for (let step = 1; step < 40; step++) {
        const { inbox, live } = yield* setup
        const first = yield* Effect.forkChild(Effect.yieldNow.pipe(Effect.andThen(live)))
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
        const second = yield* Effect.forkChild(live, { startImmediately: true })
        yield* TestClock.adjust("5 seconds")
        const exit = yield* Fiber.await(second)
        assert.isTrue(Exit.isSuccess(exit) && inbox.isLive, `interrupted at step ${step}, it is opened for the next`)
      }
      assert.isAbove(interruptions, 5, "the steps are really met")
    }))

  it.effect("tells a waiter of its key, also when the message comes before it sleeps", () =>
    Effect.gen(function*() {
      const { inbox, live, tell } = yield* setup
      yield* live
      const waiter = inboxes.register(inbox, "me")
      tell("=another owner")
      tell("=me")
      assert.isTrue(yield* inboxes.sleep(waiter, 1000))
      const again = yield* Effect.forkChild(inboxes.sleep(waiter, 1000), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isFalse(yield* Fiber.join(again), "one message wakes once")
    }))

  it.effect("tells a hold that another process waits, or that it was revoked", () =>
    Effect.gen(function*() {
      const { held, live, tell } = yield* setup
      yield* live
      const told: Array<string> = []
      const request = {
        ...support.requestOf("k", "me"),
        onWanted: () => void told.push("wanted"),
        onLost: (reason: string) => void told.push(reason)
      }
      holds.begin(held, attempts.make(request, "", 5000))
      tell("?other")
      tell("?me")
      tell("!me")
      tell("?me")
      assert.deepStrictEqual(told, ["wanted", "taken"], "what is lost is told nothing more")
    }))

  it.effect("is opened again when it breaks, and every waiter looks", () =>
    Effect.gen(function*() {
      const { close, inbox, live, subscriptions } = yield* setup
      yield* live
      const waiter = inboxes.register(inbox, "me")
      close()
      assert.isFalse(inbox.isLive)
      const sleeping = yield* Effect.forkChild(inboxes.sleep(waiter, 3_600_000), { startImmediately: true })
      yield* settle
      assert.isFalse(yield* Fiber.join(sleeping), "woken, but not handed the key")
      assert.isTrue(inbox.isLive)
      assert.strictEqual(subscriptions(), 2)
    }))

  it.effect("that ends as soon as it begins is opened four times a second", () =>
    Effect.gen(function*() {
      const { close, live, subscriptions } = yield* setup
      yield* live
      for (let elapsed = 0; elapsed < 1000; elapsed += 10) {
        close()
        yield* TestClock.adjust(10)
      }
      assert.isAtMost(subscriptions(), 5)
    }))

  it.effect("that is refused is an error at once, and tried again", () =>
    Effect.gen(function*() {
      const { inbox, live, refuse } = yield* setup
      refuse({ _tag: "Failed", cause: Object.assign(new Error("NOPERM this user"), { name: "ReplyError" }) })
      assert.strictEqual((yield* Effect.flip(live)).reason, "Unauthorized")
      refuse(undefined)
      yield* settle
      yield* live
      assert.isTrue(inbox.isLive)
    }))

  it.effect("that cannot be had now is waited for no longer than it is worth", () =>
    Effect.gen(function*() {
      const { inbox, live, refuse } = yield* setup
      for (
        const failure of [
          { _tag: "NotConnected", cause: new Error("connect ECONNREFUSED") } as const,
          support.refusal("ERR max number of clients reached")
        ]
      ) {
        refuse(failure)
        const waiting = yield* Effect.forkChild(live, { startImmediately: true })
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.join(waiting)
        assert.isFalse(inbox.isLive)
      }
    }))

  it.effect("that the server does not know of is replaced when a message does not come", () =>
    Effect.gen(function*() {
      const { hear, inbox, live, subscriptions } = yield* setup
      yield* live
      inboxes.reportMissed(inbox)
      yield* settle
      assert.strictEqual(subscriptions(), 1, "it is fine")
      hear(0)
      inboxes.reportMissed(inbox)
      yield* settle
      assert.strictEqual(subscriptions(), 2)
      assert.isTrue(inbox.isLive)
    }))
})
