import { PostgresLock } from "@dlock/postgres"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Listener } from "../src/internal/listener.ts"
import { make } from "./FakeDriver.ts"

describe("client", () => {
  it.effect("an opening that is stuck is given up, and the next request opens another session", () =>
    Effect.gen(function*() {
      const { client, fake } = yield* make(() => Effect.succeed([[]]))
      fake.opening = Effect.never
      const first = yield* Effect.forkScoped(Effect.flip(client.question("ping", "select")))
      yield* TestClock.adjust("5 seconds")
      assert.include(["Unreachable", "Timeout"], (yield* Fiber.join(first)).reason)
      fake.opening = Effect.void
      const second = yield* Effect.forkScoped(client.question("ping", "select"))
      yield* TestClock.adjust("1 second")
      assert.isDefined(second.pollUnsafe())
      assert.lengthOf(fake.predecessors, 2)
    }))

  it.effect("a listener whose opening is stuck opens another connection", () =>
    Effect.gen(function*() {
      const { client, fake } = yield* make(() => Effect.succeed([[]]))
      fake.listening = Effect.never
      const listener = new Listener(client)
      const started = yield* Effect.forkScoped(listener.start)
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(started)
      fake.listening = Effect.void
      yield* TestClock.adjust("1 second")
      assert.isTrue(listener.isListening)
    }))

  it.effect("a url or password that never comes fails the layer within the command timeout", () =>
    Effect.gen(function*() {
      const built = yield* Effect.forEach(
        [{ url: Effect.never }, { password: Effect.never }],
        (options) => Effect.forkScoped(Effect.flip(PostgresLock.make({ ...options, port: 1 })))
      )
      yield* TestClock.adjust("5 seconds")
      for (const fiber of built) {
        assert.isDefined(fiber.pollUnsafe())
        assert.include(["Unreachable", "Timeout"], (yield* Fiber.join(fiber)).reason)
      }
    }))

  it.effect("a question that is under way when the layer closes fails, and so do later ones", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { client } = yield* Scope.provide(make(() => Effect.never), scope)
      const ping = Effect.flip(client.question("ping", "select"))
      const underWay = yield* Effect.forkScoped(ping)
      yield* TestClock.adjust("1 millis")
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("100 millis")
      assert.strictEqual((yield* Fiber.join(underWay)).reason, "Closed")
      assert.strictEqual((yield* ping).reason, "Closed")
    }))
})
