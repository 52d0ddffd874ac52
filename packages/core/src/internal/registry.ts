/**
 * Layers by name, each built once, when it is first asked for.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as ScopedCache from "effect/ScopedCache"
import { Lock } from "../Lock.ts"

/**
 * A caller that asks while a layer is being built waits for that build. One that failed is closed at once, and the next caller
 * builds anew. All are closed with the scope.
 */
export const make = Effect.fnUntraced(function*<E, R>(
  layers: ReadonlyMap<string, Layer.Layer<Lock, E, R>>
): Effect.fn.Return<(name: string) => Effect.Effect<Lock["Service"] | undefined, E>, never, R | Scope.Scope> {
  // Not the context of the caller that happens to be first.
  const context = yield* Effect.context<R>()
  const cache = yield* ScopedCache.makeWith({
    lookup: Effect.fnUntraced(function*(name: string) {
      const layer = layers.get(name)
      if (layer === undefined) return undefined
      // Each on its own: what two names have in common, say what wraps any lock, would else be built once, over the
      // first of them, and two backends would be one.
      const built = yield* Layer.buildWithScope(Layer.fresh(layer), yield* Effect.scope).pipe(
        Effect.updateContext((_: Context.Context<never>) => context)
      )
      return Context.get(built, Lock)
    }),
    capacity: Math.max(layers.size, 1),
    timeToLive: Exit.match({ onSuccess: () => Duration.infinity, onFailure: () => Duration.zero })
  })
  return (name) => layers.has(name) ? ScopedCache.get(cache, name) : Effect.undefined
})
