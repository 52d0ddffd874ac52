import { assert } from "@effect/vitest"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Grant, LockBackend, LockRequest, Validity } from "../LockBackend.ts"
import type { LockBackendError, LossReason } from "../LockError.ts"
import type {
  Capabilities,
  CountedClient,
  DisturbedClient,
  LateClient,
  MortalClient,
  RevocableClient
} from "./Capabilities.ts"
import { type Limits, limitsOf, type Time, timeOf } from "./Time.ts"

export { isPending } from "./Time.ts"

export type Client = LockBackend["Service"]

/** A request that remembers what it was told. */
export interface TestRequest extends LockRequest {
  ttl: number
  readonly losses: Array<LossReason>
  readonly lost: Deferred.Deferred<void>
  readonly wanted: Deferred.Deferred<void>
}

/** The clients of a case. */
interface Clients {
  readonly a: Client
  readonly b: Client
  readonly mortal: Effect.Effect<MortalClient, never, Scope.Scope>
  readonly revocable: Effect.Effect<RevocableClient, never, Scope.Scope>
  readonly late: Effect.Effect<LateClient, never, Scope.Scope>
  readonly counted: Effect.Effect<CountedClient, never, Scope.Scope>
  readonly swapped: Effect.Effect<DisturbedClient, never, Scope.Scope>
  readonly busy: Effect.Effect<DisturbedClient, never, Scope.Scope>
  readonly full: Effect.Effect<DisturbedClient, never, Scope.Scope>
}

/** What a case works with. Times are milliseconds. */
export interface Kit extends Clients, Limits, Time {
  readonly capabilities: Capabilities<unknown>
  readonly key: () => string
  /** A request with an owner of its own, a long ttl and no wish for spare tokens, unless the case says otherwise. */
  readonly newRequest: (key: string, wish?: { readonly ttl?: number, readonly spare?: number }) => TestRequest
  /** Starts `acquire` for a held key and goes on when it stands in line. */
  readonly lineUp: (
    client: Client,
    request: LockRequest
  ) => Effect.Effect<Fiber.Fiber<Grant, LockBackendError>, never, Scope.Scope>
  /** A `tryAcquire` that must be granted. */
  readonly take: (client: Client, request: LockRequest, property: string) => Effect.Effect<Grant, LockBackendError>
  readonly expectHeld: (key: string, property: string) => Effect.Effect<void, LockBackendError>
  /** Both clients can have the key at once, so nothing holds it and nothing stands in line. */
  readonly expectFree: (key: string, property: string) => Effect.Effect<void, LockBackendError>
}

export const endOf = (validity: Validity): number => validity.validFrom + validity.ttl

/** A verb that the backend does not have fails with `Unsupported`. */
export const expectUnsupported = (exit: Exit.Exit<unknown, LockBackendError>, verb: string): void => {
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Exit.findErrorOption(exit)) : undefined
  assert.strictEqual(error?.reason, "Unsupported", `${verb} fails with Unsupported unless the capabilities declare it`)
}

const takeOf = ({ persist }: Time): Kit["take"] => (client, request, property) =>
  Effect.map(persist(client.tryAcquire(request)), (grant) => Option.getOrElse(grant, () => assert.fail(property)))

const missing = Effect.die("the capabilities of this backend do not have what the case asks for")

/** What fails closes what it opened. */
const whole = <A, E, R>(client: Effect.Effect<A, E, R | Scope.Scope>): Effect.Effect<A, E, R | Scope.Scope> =>
  Effect.gen(function*() {
    const scope = yield* Scope.fork(yield* Effect.scope)
    return yield* Effect.onError(Scope.provide(client, scope), () => Scope.close(scope, Exit.void))
  })

const clientsOf = <R>(
  { a, b }: Pick<Clients, "a" | "b">,
  capabilities: Capabilities<R>,
  context: Context.Context<R>,
  { persist }: Time
): Clients => {
  const third = <A>(
    client: Effect.Effect<A, unknown, R | Scope.Scope> | undefined
  ): Effect.Effect<A, never, Scope.Scope> =>
    Effect.orDie(Effect.provideContext(persist(whole(client ?? missing)), context))
  return {
    a,
    b,
    mortal: third(capabilities.mortal),
    revocable: third(capabilities.revocable),
    late: third(capabilities.late),
    counted: third(capabilities.counted),
    swapped: third(capabilities.swapped),
    busy: third(capabilities.busy),
    full: third(capabilities.full)
  }
}

const newRequestOf = ({ longTtl }: Limits): Kit["newRequest"] => (key, { spare = 0, ttl = longTtl } = {}) => {
  const losses: Array<LossReason> = []
  const wanted = Deferred.makeUnsafe<void>()
  const lost = Deferred.makeUnsafe<void>()
  return {
    key,
    owner: `suite/${crypto.randomUUID()}`,
    ttl,
    spare,
    losses,
    lost,
    wanted,
    onLost: (reason) => {
      losses.push(reason)
      Deferred.doneUnsafe(lost, Effect.void)
    },
    onWanted: () => Deferred.doneUnsafe(wanted, Effect.void)
  }
}

const start = ({ persist }: Time, client: Client, request: LockRequest) =>
  Effect.forkScoped(persist(client.acquire(request)), { startImmediately: true })

const lineUpOf = <R>(
  { inLine }: Capabilities<R>,
  context: Context.Context<R>,
  { patience }: Limits,
  time: Time
): Kit["lineUp"] => {
  const { settle, until } = time
  if (inLine === undefined) return (client, request) => Effect.tap(start(time, client, request), () => settle)
  const count = (key: string) => Effect.orDie(Effect.provideContext(inLine(key), context))
  return Effect.fnUntraced(function*(client, request) {
    const before = yield* count(request.key)
    const fiber = yield* start(time, client, request)
    const isInLine = Effect.map(count(request.key), (n) => n > before)
    yield* until(isInLine, patience, "an acquire takes its place in line")
    return fiber
  })
}

export const make = <R>(
  clients: Pick<Clients, "a" | "b">,
  capabilities: Capabilities<R>,
  context: Context.Context<R>
): Kit => {
  const { a, b } = clients
  const limits = limitsOf(capabilities)
  const time = timeOf(capabilities)
  const newRequest = newRequestOf(limits)
  const take = takeOf(time)
  const expectRefused = (client: Client, key: string, property: string) =>
    Effect.map(client.tryAcquire(newRequest(key)), (grant) => assert.isTrue(Option.isNone(grant), property))
  return {
    ...clientsOf(clients, capabilities, context, time),
    ...limits,
    ...time,
    capabilities,
    key: () => `suite ${crypto.randomUUID()}`,
    newRequest,
    lineUp: lineUpOf(capabilities, context, limits, time),
    take,
    expectHeld: (key, property) =>
      Effect.forEach([a, b], (client) => expectRefused(client, key, property), { discard: true }),
    expectFree: (key, property) =>
      Effect.forEach([b, a], (client) => {
        const request = newRequest(key)
        return Effect.andThen(take(client, request, property), client.release(request))
      }, { discard: true })
  }
}
