import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { make } from "./FakeDriver.ts"

describe("client", () => {
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
