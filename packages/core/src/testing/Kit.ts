import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import type { Grant, LockBackend, LockRequest, Validity } from "../LockBackend.ts"
import type { LockBackendError, LossReason } from "../LockError.ts"
import type { Capabilities, MortalClient, RevocableClient } from "./Capabilities.ts"

export type Client = LockBackend["Service"]

/** A request that remembers what it was told. */
export interface Attempt extends LockRequest {
  readonly losses: Array<LossReason>
  readonly lost: Deferred.Deferred<void>
}

/** What a case works with. */
export interface Kit {
  readonly a: Client
  readonly b: Client
  readonly mortal: Effect.Effect<MortalClient, never, Scope.Scope>
  readonly revocable: Effect.Effect<RevocableClient, never, Scope.Scope>
  readonly capabilities: Capabilities<unknown>
  /** For leases that are to end. */
  readonly minTtl: Duration.Duration
  /** For leases that must not end during a case: longer than any limit, so that an expiry hides no leak. */
  readonly longTtl: Duration.Duration
  readonly granularity: Duration.Duration
  readonly deadWaiterDelay: Duration.Duration
  readonly commandTimeout: Duration.Duration
  /** Longer than anything takes that the backend does at once, shorter than `longTtl`. */
  readonly patience: Duration.Duration
  /** What a busy machine adds to a measured time. */
  readonly slack: Duration.Duration
  readonly now: Effect.Effect<bigint>
  readonly key: () => string
  readonly attempt: (key: string, ttl?: Duration.Duration) => Attempt
  /** Lets time pass. */
  readonly elapse: (duration: Duration.Duration) => Effect.Effect<void>
  /** A short while, or none for 0: with 0 to 7 a case hits different moments of a request in flight. */
  readonly pause: (length: number) => Effect.Effect<void>
  /** Long enough for a request to be answered. */
  readonly settle: Effect.Effect<void>
  /** The effect must end within `limit`. */
  readonly within: <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    limit: Duration.Duration,
    property: string
  ) => Effect.Effect<A, E, R>
  /** The condition must come true within `limit`. */
  readonly until: <E, R>(
    condition: Effect.Effect<boolean, E, R>,
    limit: Duration.Duration,
    property: string
  ) => Effect.Effect<void, E, R>
  /** Starts `acquire` for a held key and goes on when it stands in line. */
  readonly lineUp: (
    client: Client,
    request: LockRequest
  ) => Effect.Effect<Fiber.Fiber<Grant, LockBackendError>, never, Scope.Scope>
  /** A single attempt that must succeed. */
  readonly take: (client: Client, request: LockRequest, property: string) => Effect.Effect<Grant, LockBackendError>
  readonly expectHeld: (key: string, property: string) => Effect.Effect<void, LockBackendError>
  /** Both clients can have the key at once, so nothing holds it and nothing stands in line. */
  readonly expectFree: (key: string, property: string) => Effect.Effect<void, LockBackendError>
}

export const endOf = (validity: Validity): bigint => validity.validFrom + Duration.toNanosUnsafe(validity.ttl)

export const isPending = (fiber: Fiber.Fiber<unknown, unknown>): boolean => fiber.pollUnsafe() === undefined

const take: Kit["take"] = (client, request, property) =>
  Effect.map(client.tryAcquire(request), (grant) => Option.getOrElse(grant, () => assert.fail(property)))

const step = Duration.millis(50)
const turns = Effect.repeat(Effect.yieldNow, { times: 20 })

const missing = Effect.die("the capabilities of this backend do not have what the case asks for")

export const make = <R>(
  clients: { readonly a: Client, readonly b: Client },
  capabilities: Capabilities<R>,
  context: Context.Context<R>
): Kit => {
  const { a, b } = clients
  const live = capabilities.clock === "live"
  const minTtl = Duration.fromInputUnsafe(capabilities.minTtl)
  const longTtl = Duration.max(Duration.minutes(5), Duration.times(minTtl, 2))
  const granularity = Duration.fromInputUnsafe(capabilities.granularity ?? Duration.zero)
  const deadWaiterDelay = Duration.fromInputUnsafe(capabilities.deadWaiterDelay ?? Duration.sum(minTtl, granularity))
  const commandTimeout = Duration.fromInputUnsafe(capabilities.commandTimeout ?? Duration.seconds(5))
  const settleTime = Duration.fromInputUnsafe(capabilities.settle ?? Duration.millis(100))
  const patience = Duration.seconds(10)
  const now = Clock.monotonicTimeNanos

  const attempt = (key: string, ttl: Duration.Duration = longTtl): Attempt => {
    const losses: Array<LossReason> = []
    const lost = Deferred.makeUnsafe<void>()
    return {
      key,
      owner: `suite/${crypto.randomUUID()}`,
      ttl,
      losses,
      lost,
      onLost: (reason) => {
        losses.push(reason)
        Deferred.doneUnsafe(lost, Effect.void)
      }
    }
  }

  const count = capabilities.inLine
  const inLine = count && ((key: string) => Effect.orDie(Effect.provideContext(count(key), context)))
  const elapse = live ? Effect.sleep : TestClock.adjust
  const settle = live ? Effect.sleep(settleTime) : turns
  const pause = (length: number): Effect.Effect<void> =>
    length === 0 ? Effect.void : live ? Effect.sleep(length) : Effect.repeat(Effect.yieldNow, { times: length - 1 })

  const until: Kit["until"] = Effect.fnUntraced(function*(condition, limit, property) {
    const end = (yield* now) + Duration.toNanosUnsafe(limit)
    while (!(yield* condition)) {
      if ((yield* now) >= end) return assert.fail(`${property}, within ${Duration.format(limit)}`)
      yield* live ? Effect.sleep("10 millis") : Effect.andThen(turns, TestClock.adjust(step))
    }
  })

  const within: Kit["within"] = Effect.fnUntraced(function*(effect, limit, property) {
    if (live) {
      return yield* Effect.timeoutOrElse(effect, {
        duration: limit,
        orElse: () => Effect.sync(() => assert.fail(`${property}, within ${Duration.format(limit)}`))
      })
    }
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    for (let turn = 0; turn < 20 && isPending(fiber); turn++) yield* Effect.yieldNow
    yield* until(Effect.sync(() => !isPending(fiber)), limit, property)
    return yield* Fiber.join(fiber)
  })

  const lineUp: Kit["lineUp"] = Effect.fnUntraced(function*(client, request) {
    const before = inLine === undefined ? 0 : yield* inLine(request.key)
    const fiber = yield* Effect.forkScoped(client.acquire(request), { startImmediately: true })
    yield* inLine === undefined
      ? settle
      : until(Effect.map(inLine(request.key), (n) => n > before), patience, "an acquire takes its place in line")
    return fiber
  })

  return {
    a,
    b,
    mortal: Effect.orDie(Effect.provideContext(capabilities.mortal ?? missing, context)),
    revocable: Effect.orDie(Effect.provideContext(capabilities.revocable ?? missing, context)),
    capabilities,
    minTtl,
    longTtl,
    granularity,
    deadWaiterDelay,
    commandTimeout,
    patience,
    slack: live ? Duration.seconds(1) : Duration.zero,
    now,
    key: () => `suite ${crypto.randomUUID()}`,
    attempt,
    elapse,
    pause,
    settle,
    within,
    until,
    lineUp,
    take,
    expectHeld: (key, property) =>
      Effect.forEach(
        [a, b],
        (client) =>
          Effect.map(client.tryAcquire(attempt(key)), (grant) => assert.isTrue(Option.isNone(grant), property)),
        { discard: true }
      ),
    expectFree: (key, property) =>
      Effect.forEach([b, a], (client) => {
        const request = attempt(key)
        return Effect.andThen(take(client, request, property), client.release(request))
      }, { discard: true })
  }
}
