import { Lock, LockBackend, MemoryLock } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"

class One extends Context.Service<One, Lock["Service"]>()("One") {}
class Two extends Context.Service<Two, Lock["Service"]>()("Two") {}

const backend = (name: string) => Layer.effect(LockBackend, Effect.map(MemoryLock.make, (made) => ({ ...made, name })))

describe("Lock.layer", () => {
  it.effect("over two backends in one program is two locks", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual([(yield* One).backend, (yield* Two).backend], ["one", "two"])
    }).pipe(Effect.provide([
      Layer.provide(Layer.effect(One, Lock), Layer.provide(Lock.layer, backend("one"))),
      Layer.provide(Layer.effect(Two, Lock), Layer.provide(Lock.layer, backend("two")))
    ])))

  it.effect("over one backend, given twice, is one lock", () => {
    const shared = Layer.provide(Lock.layer, backend("one"))
    return Effect.gen(function*() {
      assert.strictEqual(yield* One, yield* Two)
    }).pipe(Effect.provide([
      Layer.provide(Layer.effect(One, Lock), shared),
      Layer.provide(Layer.effect(Two, Lock), shared)
    ]))
  })
})
