import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { LockBackend } from "../LockBackend.ts"
import type { LockBackendError } from "../LockError.ts"
import type { Capabilities } from "./Capabilities.ts"
import type { Client, Kit } from "./Kit.ts"

/**
 * Two clients of one store, as two programs would have them.
 *
 * @category services
 * @since 0.1.0
 */
export class Clients extends Context.Service<Clients, { readonly a: Client, readonly b: Client }>()(
  "@dlock/core/testing/Clients"
) {
  /**
   * Builds the layer twice, afresh.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer = <E, R>(backend: Layer.Layer<LockBackend, E, R>): Layer.Layer<Clients, E, R> => {
    const client = Effect.map(Layer.build(Layer.fresh(backend)), Context.get(LockBackend))
    return Layer.effect(Clients, Effect.all({ a: client, b: client }))
  }
}

/**
 * What a case tests: a law of `LockBackend`, a verb that the laws do not number, or what core builds on locks.
 *
 * @category models
 * @since 0.1.0
 */
export type Law = number | "inspect" | "revoke" | "ping" | "permits"

/** A case of the suite, before it is known what it runs on. */
export interface Definition {
  readonly law: Law
  readonly name: string
  /** What the backend must be able to do, in words and as a condition. */
  readonly needs?: readonly [what: string, met: (capabilities: Capabilities<unknown>) => boolean] | undefined
  /** Keeps the machine or the server busy, so it runs alone. */
  readonly heavy?: boolean | undefined
  readonly run: (kit: Kit) => Effect.Effect<void, LockBackendError, Scope.Scope>
}
