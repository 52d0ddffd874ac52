import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { inspect } from "node:util"
import { format } from "../../backend/Address.ts"
import { passes } from "../../backend/Errors.ts"
import type { LockBackend, LockRequest } from "../../LockBackend.ts"
import { LockBackendError } from "../../LockError.ts"
import { persist } from "../Time.ts"
import type { Adapter, Place, Road, Server } from "./Adapter.ts"

export type Client = Pick<
  LockBackend["Service"],
  "tryAcquire" | "acquire" | "renew" | "release" | "inspect" | "ping"
>

/** What a case works with. Times are milliseconds. */
export interface Kit<O extends object> {
  readonly adapter: Adapter<O>
  readonly commandTimeout: number
  /** What a busy machine adds to a measured time. */
  readonly slack: number
  /** A server that the case may kill and freeze. */
  readonly ownServer: Effect.Effect<Server, never, Scope.Scope>
  /** A server that other cases use at the same time. */
  readonly server: Effect.Effect<Place, never, Scope.Scope>
  readonly road: (server: Place) => Effect.Effect<Road, never, Scope.Scope>
  /** What the options that lead to a place make, once. */
  readonly connect: (place: Place) => Effect.Effect<Client, LockBackendError, Scope.Scope>
  /** The same for a server that is there, see `open`. */
  readonly client: (place: Place) => Effect.Effect<Client, LockBackendError, Scope.Scope>
  /** A key and an owner of their own. */
  readonly request: (key?: string) => LockRequest
}

/** A case of the suite, before it is known what it runs on. */
export interface Definition {
  readonly name: string
  /** What the adapter must have. */
  readonly needs?: "locked" | "encrypted" | "leastRights" | "given" | undefined
  /** It takes a minute. */
  readonly slow?: boolean | undefined
  readonly run: <O extends object>(kit: Kit<O>) => Effect.Effect<void, LockBackendError, Scope.Scope>
}

/** How long anything may take that succeeds in the end, such as to have locks again after an outage. */
export const patience = 20_000

let requests = 0

const millis = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))

/** The client with verbs that persist. */
export const patient = (client: Client): Client => ({
  tryAcquire: (request) => persist(client.tryAcquire(request)),
  acquire: (request) => persist(client.acquire(request)),
  renew: (request, how) => persist(client.renew(request, how)),
  release: (request) => persist(client.release(request)),
  inspect: (key) => persist(client.inspect(key)),
  ping: persist(client.ping)
})

/**
 * A patient client of a server that is there: a busy machine may keep it from answering within the command timeout,
 * which is short here.
 */
export const open = <R>(make: Effect.Effect<Client, LockBackendError, R>): Effect.Effect<Client, LockBackendError, R> =>
  Effect.map(persist(make), patient)

/** `shared` is the server of the cases that do it no harm. */
export const make = <O extends object>(adapter: Adapter<O>, shared: Adapter<O>["server"]): Kit<O> => {
  const connect: Kit<O>["connect"] = (place) => adapter.make(adapter.options(place))
  return {
    adapter,
    commandTimeout: millis(adapter.commandTimeout),
    slack: 5000,
    ownServer: Effect.orDie(adapter.server),
    server: Effect.orDie(shared),
    road: (server) => Effect.orDie(adapter.road(server)),
    connect,
    client: (place) => open(connect(place)),
    request: (key = `connection/${++requests}`) => ({
      key,
      owner: `suite/${crypto.randomUUID()}`,
      ttl: millis(adapter.ttl ?? "1 minute"),
      spare: 0,
      onLost: () => {},
      onWanted: () => {}
    })
  }
}

const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

/** The effect must end within `limit`. What hangs is left behind: to interrupt it might hang as well. */
export const within = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  limit: number,
  property: string
): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.forkDetach(effect, { startImmediately: true }), (fiber) =>
    Fiber.join(fiber).pipe(
      Effect.timeoutOrElse({
        duration: limit,
        orElse: () =>
          Effect.andThen(
            Effect.forkDetach(Fiber.interrupt(fiber)),
            Effect.sync(() => assert.fail(`${property}, within ${limit} ms`))
          )
      }),
      Effect.onInterrupt(() => Fiber.interrupt(fiber))
    ))

/** The effect must fail, and not die. */
export const mustFail = <A, E, R>(effect: Effect.Effect<A, E, R>, property: string): Effect.Effect<E, never, R> =>
  Effect.matchCauseEffect(effect, {
    onSuccess: () => Effect.sync(() => assert.fail(property)),
    onFailure: (cause) =>
      Result.match(Cause.findError(cause), {
        onSuccess: Effect.succeed,
        onFailure: () => Effect.sync(() => assert.fail(`${property} with a typed error, not ${Cause.pretty(cause)}`))
      })
  })

/** The condition must come true within `limit`. */
export const until = Effect.fnUntraced(function*<E, R>(
  condition: Effect.Effect<boolean, E, R>,
  limit: number,
  property: string
) {
  const end = (yield* now) + limit
  while (!(yield* condition)) {
    if ((yield* now) >= end) return assert.fail(`${property}, within ${limit} ms`)
    yield* Effect.sleep("20 millis")
  }
})

/** What the adapter has, once the case is run. */
export const need = <A, R>(effect: Effect.Effect<A, unknown, R> | undefined): Effect.Effect<A, never, R> =>
  Effect.orDie(effect ?? Effect.die("the adapter does not have what the case needs"))

/** Everything that anybody could print of a value. */
const everything = (u: unknown): string =>
  [String(u), JSON.stringify(u), inspect(u, { depth: 20, showHidden: true }), u instanceof Error ? u.stack : ""]
    .join("\n")

/** No print of the value has the secret in it. */
export const assertSilent = (u: unknown, secret: string): void =>
  assert.notInclude(everything(u), secret, "no secret is in anything that may be printed")

/**
 * The effect must fail within the command timeout with a typed error, whose one line names the place. It may time out a
 * few times before it fails with what `isIt`: the machine may be busy.
 */
export const failsTo = <A, O extends object>(
  { commandTimeout, slack }: Kit<O>,
  place: Place,
  effect: Effect.Effect<A, LockBackendError>,
  isIt: (error: LockBackendError) => boolean = () => true
): Effect.Effect<LockBackendError> =>
  within(mustFail(effect, "it fails"), commandTimeout + slack, "it fails").pipe(
    Effect.repeat({ times: 3, until: (error) => isIt(error) || !passes(error) }),
    Effect.map((error) => {
      assert.instanceOf(error, LockBackendError)
      assert.notInclude(error.message, "\n", "the error is one line")
      assert.include(error.message, format(place), "the error names the address")
      return error
    })
  )

/** Building with these options must fail so, with an error that says `text`. */
export const failsToSay = <O extends object>(
  kit: Kit<O>,
  place: Place,
  options: O,
  text: string
): Effect.Effect<void> =>
  Effect.map(
    failsTo(kit, place, Effect.scoped(kit.adapter.make(options)), (error) => error.message.includes(text)),
    (error) => assert.include(error.message, text)
  )

/** Another client can have the key at once. */
export const expectFree = <O extends object>(
  { request, slack }: Kit<O>,
  client: Client,
  key: string,
  property: string
): Effect.Effect<void, LockBackendError> => {
  const attempt = request(key)
  // What is still under way on the server may end a moment later.
  return until(Effect.map(client.tryAcquire(attempt), Option.isSome), slack, property).pipe(
    Effect.andThen(client.release(attempt))
  )
}
