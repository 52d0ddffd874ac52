import type { LockRequest } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Listener } from "../src/internal/listener.ts"
import { Requests } from "../src/internal/requests.ts"
import type { Asked, Server } from "./FakeDriver.ts"
import { firstColumn, make } from "./FakeDriver.ts"

const verbOf = ({ text }: Asked): string | undefined => /acquire|renew|release/.exec(text)?.[0]

const era = 1n

/** A server that grants, renews and releases everything. */
const granting: Server = (asked) => {
  const keys = verbOf(asked) === "acquire" ? asked.params[2] : asked.params[0]
  const rows = Array.isArray(keys) ? keys : []
  switch (verbOf(asked)) {
    case "acquire":
      return Effect.succeed(rows.map((_, i) => [i + 1, 1, era, 0n, 5n, 5n, false, null, null, null]))
    case "renew":
      return Effect.succeed(rows.map((_, i) => [i + 1, era, 5n, 5n, false]))
    default:
      return Effect.succeed(rows.map((_, i) => [i + 1, true]))
  }
}

const newRequest = (ttl: number): { -readonly [name in keyof LockRequest]: LockRequest[name] } => ({
  key: "k",
  owner: "test/owner",
  ttl,
  spare: 0,
  onLost: () => {},
  onWanted: () => {}
})

/** A request that was granted. */
const holder = Effect.fnUntraced(function*(ttl: number) {
  const { client, fake } = yield* make(granting)
  const listener = new Listener(client)
  const requests = new Requests(client, listener, { schema: "dlock", keyPrefix: "", ahead: 0, era })
  const request = newRequest(ttl)
  const state = requests.of(request)
  const taken = yield* Effect.forkScoped(requests.take(state))
  yield* TestClock.adjust("1 millis")
  yield* Fiber.join(taken)
  return { client, fake, listener, request, requests, state }
})

describe("requests", () => {
  it.effect("a connection that falls silent costs a hold one renewal, and not its time", () =>
    Effect.gen(function*() {
      for (const ttl of [2000, 6000]) {
        const { fake, requests, state } = yield* holder(ttl)
        const before = fake.predecessors.length
        fake.server = (asked) => asked.session <= before ? Effect.never : granting(asked)
        const renewal = yield* Effect.forkScoped(Effect.retry(requests.renew(state, undefined), { times: 1 }))
        yield* TestClock.adjust(ttl / 3)
        assert.isDefined(renewal.pollUnsafe(), `the second of two tries within a third of ${ttl} ms is answered`)
        assert.isTrue(Option.isSome(yield* Fiber.join(renewal)))
        assert.strictEqual(fake.predecessors[before], `session ${before}`, "the silent session is replaced")
      }
    }))

  it.effect("a renewal with a short ttl has the time that an answer may take", () =>
    Effect.gen(function*() {
      const { fake, requests, state } = yield* holder(400)
      fake.server = (asked) => Effect.delay(granting(asked), "200 millis")
      const renewal = yield* Effect.forkScoped(requests.renew(state, undefined))
      yield* TestClock.adjust("200 millis")
      assert.isTrue(Option.isSome(yield* Fiber.join(renewal)))
    }))

  it.effect("a renewal asks for the ttl that the request has by now, and answers it", () =>
    Effect.gen(function*() {
      const { fake, request, requests, state } = yield* holder(2000)
      request.ttl = 20_000.5
      const renewal = yield* Effect.forkScoped(requests.renew(state, undefined))
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(Option.getOrThrow(yield* Fiber.join(renewal)).ttl, 20_001)
      assert.deepStrictEqual(fake.asked.at(-1)?.params[2], [20_001n])
    }))

  it.effect("what is being released is not renewed or listened for, also when the release is not answered", () =>
    Effect.gen(function*() {
      const { fake, listener, requests, state } = yield* holder(2000)
      const notifications = () => fake.asked.filter(({ text }) => text.includes("pg_notify")).length
      const started = yield* Effect.forkScoped(listener.start)
      yield* TestClock.adjust("1 millis")
      assert.isTrue(yield* Fiber.join(started))
      yield* TestClock.adjust("20 seconds")
      const whileHeld = notifications()
      assert.isAbove(whileHeld, 1, "a holder is listened for")

      fake.server = (asked) => verbOf(asked) === "release" ? Effect.never : granting(asked)
      const release = yield* Effect.forkScoped(Effect.flip(requests.release(state)))
      yield* TestClock.adjust("2 seconds")
      assert.include((yield* Fiber.join(release)).message, "no answer within 2000 ms")
      const afterwards = notifications()
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(notifications(), afterwards)

      // Another run of the server answers the next request.
      const renewed = () => fake.asked.filter((asked) => verbOf(asked) === "renew")
      fake.server = (asked) =>
        verbOf(asked) === "acquire"
          ? Effect.succeed([
            asked.params[0] === era
              ? [1, 4, 2n, 0n, null, null, null, null, null, null]
              : [1, 1, 2n, 0n, 6n, 6n, false, null, null, null]
          ])
          : Effect.succeed(firstColumn(asked).map((_, i) => [i + 1, 2n, 5n, 5n, false]))
      const other = yield* Effect.forkScoped(requests.take(requests.of({ ...newRequest(2000), owner: "test/other" })))
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(other)
      assert.lengthOf(renewed(), 0)
    }))

  it.effect("an acquire that waits until what is held is renewed elsewhere fails when the layer closes", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { fake, requests } = yield* Scope.provide(holder(30_000), scope)
      fake.server = (asked) =>
        verbOf(asked) === "acquire"
          ? Effect.succeed([[1, 4, 2n, 0n, null, null, null, null, null, null]])
          : Effect.never
      const other = requests.of({ ...newRequest(30_000), owner: "test/other" })
      const acquiring = yield* Effect.forkScoped(Effect.flip(requests.take(other)))
      yield* TestClock.adjust("1 millis")
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("100 millis")
      assert.strictEqual((yield* Fiber.join(acquiring)).reason, "Closed")
    }))
})
