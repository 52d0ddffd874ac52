/**
 * Tests a `LockBackend` against its laws, on real servers or under `TestClock`. A test file of a backend is one call:
 *
 * ```ts
 * import { LockTest } from "@dlock/core/testing"
 *
 * LockTest.suite("mine", MyLock.layerBackend({ url: "localhost:1234" }), {
 *   clock: "live",
 *   freedBy: "ttl",
 *   ttl: "request",
 *   minTtl: "2 seconds",
 *   fifo: true,
 *   pushesLoss: false
 * })
 * ```
 *
 * It needs `@effect/vitest` and `vitest`, the optional peers of this package.
 *
 * @since 0.1.0
 */
import { layer as testLayer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { LockBackend } from "../LockBackend.ts"
import type { LockBackendError } from "../LockError.ts"
import type { Capabilities } from "./Capabilities.ts"
import { Clients } from "./Case.ts"
import type { Definition, Law } from "./Case.ts"
import * as Kit from "./Kit.ts"
import { closeKeys } from "./laws/closeKeys.ts"
import { deadHolder } from "./laws/deadHolder.ts"
import { disturbed } from "./laws/disturbed.ts"
import { exclusion } from "./laws/exclusion.ts"
import { inspect } from "./laws/inspect.ts"
import { keys } from "./laws/keys.ts"
import { line } from "./laws/line.ts"
import { load } from "./laws/load.ts"
import { lost } from "./laws/lost.ts"
import { permits } from "./laws/permits.ts"
import { ping } from "./laws/ping.ts"
import { release } from "./laws/release.ts"
import { renew } from "./laws/renew.ts"
import { requests } from "./laws/requests.ts"
import { resend } from "./laws/resend.ts"
import { revoke } from "./laws/revoke.ts"
import { tokens } from "./laws/tokens.ts"
import { unreachable } from "./laws/unreachable.ts"
import { wanted } from "./laws/wanted.ts"
import { withdraw } from "./laws/withdraw.ts"

export type {
  Capabilities,
  CountedClient,
  DisturbedClient,
  Inspects,
  LateClient,
  MortalClient,
  RevocableClient
} from "./Capabilities.ts"
export { Clients } from "./Case.ts"
export type { Law } from "./Case.ts"

/**
 * One property of a backend. The effect dies with an assertion error, whose message names the property, when the
 * property does not hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface Case<R = never> {
  readonly law: Law
  readonly name: string
  /** What the declared capabilities lack for this case, or `undefined` when it can run. */
  readonly lacks: string | undefined
  /** It keeps the machine or the server busy, so it runs alone. */
  readonly heavy: boolean
  readonly effect: Effect.Effect<void, LockBackendError, Clients | R>
}

const testTimeout = 240_000

const definitions: ReadonlyArray<Definition> = [
  ...exclusion,
  ...keys,
  ...closeKeys,
  ...resend,
  ...renew,
  ...release,
  ...withdraw,
  ...line,
  ...tokens,
  ...deadHolder,
  ...lost,
  ...wanted,
  ...inspect,
  ...revoke,
  ...ping,
  ...unreachable,
  ...requests,
  ...permits,
  ...disturbed,
  ...load
]

/**
 * The cases as data, for running them by other means than `suite`. Each takes fresh keys, so they can share clients.
 *
 * @category constructors
 * @since 0.1.0
 */
export const cases = <R = never>(capabilities: Capabilities<R>): ReadonlyArray<Case<R>> =>
  definitions.map(({ heavy, law, name, needs, run }) => ({
    law,
    name,
    lacks: needs === undefined || needs[1](capabilities) ? undefined : needs[0],
    heavy: heavy === true,
    effect: Effect.flatMap(
      Effect.context<R | Clients>(),
      (context) => Effect.scoped(run(Kit.make(Context.get(context, Clients), capabilities, context)))
    )
  }))

const register = <E, R>(
  name: string,
  clients: Layer.Layer<Clients | R, E>,
  capabilities: Capabilities<R>
): void => {
  const live = capabilities.clock === "live"
  testLayer(clients, { excludeTestServices: live, concurrent: live, timeout: "1 minute" })(name, (it) => {
    for (const { effect, heavy, lacks, law, name } of cases(capabilities)) {
      const title = `${typeof law === "number" ? `law ${law}` : law}: ${name}`
      if (lacks !== undefined) it.effect.skip(`${title} (needs ${lacks})`, () => effect)
      else it.effect(title, () => effect, { timeout: testTimeout, concurrent: live && !heavy })
    }
  })
}

/**
 * Registers the cases with vitest, under `name`. `backend` is built twice, afresh, for two clients, which must see the
 * same store. Cases that the capabilities do not allow are shown as skipped, with the reason.
 *
 * @category constructors
 * @since 0.1.0
 */
export const suite = <E>(
  name: string,
  backend: Layer.Layer<LockBackend, E>,
  capabilities: Capabilities
): void => register(name, Clients.layer(backend), capabilities)

/**
 * As `suite`, with an `environment` that is built once, such as a running server. Both clients and the effects in the
 * capabilities have it in their context.
 *
 * @category constructors
 * @since 0.1.0
 */
export const suiteWith = <E, R, E2>(
  name: string,
  backend: Layer.Layer<LockBackend, E, R>,
  capabilities: Capabilities<R>,
  environment: Layer.Layer<R, E2>
): void => register(name, Layer.provideMerge(Clients.layer(backend), environment), capabilities)
