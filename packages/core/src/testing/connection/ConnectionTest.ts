/**
 * Tests what every edge to a server must do: a `LockBackend` and its options, with servers that can be killed and
 * frozen, and proxies that lose what flows through them. A test file of a backend is one call:
 *
 * ```ts
 * ConnectionTest.suite("mine", {
 *   declaration: MyLock.declaration,
 *   make: MyLock.make,
 *   layerConfig: MyLock.layerConfig,
 *   options: ({ host, port }) => ({ addrs: [`${host}:${port}`], commandTimeout: "1 second" }),
 *   environment: ({ host, port }) => ({ DLOCK_MINE_ADDRS: `${host}:${port}` }),
 *   commandTimeout: "1 second",
 *   server: myServer,
 *   road: proxy
 * })
 * ```
 *
 * It needs Node, and `@effect/vitest` and `vitest`, the optional peers of this package.
 *
 * @since 0.1.0
 */
import { afterAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { LockBackendError } from "../../LockError.ts"
import type { Adapter } from "./Adapter.ts"
import type { Definition } from "./Case.ts"
import * as Kit from "./Case.ts"
import { closing } from "./closing.ts"
import { connecting } from "./connecting.ts"
import { options } from "./options.ts"
import { outages } from "./outage.ts"
import { requests } from "./requests.ts"
import { tls } from "./tls.ts"

export type { Adapter, Encrypted, Given, Locked, Place, Road, Server } from "./Adapter.ts"

/**
 * One property of an edge. The effect dies with an assertion error, whose message names the property, when the property
 * does not hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface Case {
  readonly name: string
  /** What the adapter lacks for this case, or `undefined` when it can run. */
  readonly lacks: string | undefined
  /** It takes more than a minute. */
  readonly slow: boolean
  readonly effect: Effect.Effect<void, LockBackendError>
}

// The outages take longest, so they begin first.
const definitions: ReadonlyArray<Definition> = [
  ...outages,
  ...options,
  ...connecting,
  ...tls,
  ...requests,
  ...closing
]

/**
 * The cases as data, for running them by other means than `suite`. Each has a server of its own.
 *
 * @category constructors
 * @since 0.1.0
 */
export const cases = <O extends object>(adapter: Adapter<O>): ReadonlyArray<Case> => casesOn(adapter, adapter.server)

const casesOn = <O extends object>(adapter: Adapter<O>, shared: Adapter<O>["server"]): ReadonlyArray<Case> =>
  definitions.map(({ name, needs, run, slow = false }) => ({
    name,
    slow,
    lacks: needs === undefined || adapter[needs] !== undefined ? undefined : needs,
    effect: Effect.scoped(Effect.suspend(() => run(Kit.make(adapter, shared))))
  }))

/** The adapter whose servers are started once, when first asked for, and live until `close`. */
const sharing = <O extends object>(adapter: Adapter<O>) => {
  const scope = Scope.makeUnsafe()
  const once = <A>(make: Effect.Effect<A, unknown, Scope.Scope>): Effect.Effect<A, unknown> =>
    Effect.runSync(Effect.cached(Scope.provide(make, scope)))
  const { encrypted, leastRights, locked, server } = adapter
  return {
    adapter: {
      ...adapter,
      ...(locked && { locked: once(locked) }),
      ...(encrypted && { encrypted: once(encrypted) }),
      ...(leastRights && { leastRights: once(leastRights) })
    },
    server: once(server),
    close: Scope.close(scope, Exit.void)
  }
}

const testTimeout = 60_000

/**
 * Registers the cases with vitest, under `name`. They share servers, except for those that kill or freeze theirs. Cases that the adapter does not allow are shown as skipped, with the
 * reason.
 *
 * @category constructors
 * @since 0.1.0
 */
export const suite = <O extends object>(name: string, adapter: Adapter<O>): void => {
  const shared = sharing(adapter)
  describe(name, { concurrent: true }, () => {
    afterAll(() => Effect.runPromise(shared.close))
    for (const { effect, lacks, name, slow } of casesOn(shared.adapter, shared.server)) {
      const reason = adapter.known?.[name]
      if (lacks !== undefined) it.live.skip(`${name} (needs ${lacks})`, () => effect)
      else if (reason !== undefined) it.live.fails(`${name} (not yet: ${reason})`, () => effect)
      else it.live(name, () => effect, slow ? 2 * testTimeout : testTimeout)
    }
  })
}
