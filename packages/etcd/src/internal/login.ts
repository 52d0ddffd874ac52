/**
 * The login, once for all requests of a layer. A password costs the server a tenth of a second of its processor, so a
 * token is used for as long as the server takes it, on every connection, and the server is asked for another one only
 * when it refuses this one.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { type Connection, type Connections, grpcDeadline, type Settings } from "./connection.ts"
import { badOption, classify, type Failure, loginPending, noLeaseAsked } from "./errors.ts"

export interface Login {
  /** What requests carry now. */
  readonly token: () => string | undefined
  /** Whether a login is on its way, which is no reason to give its connection up. */
  readonly isRunning: () => boolean
  /** Logs in, unless that happened since this token was sent. Callers that ask at the same time share one login. */
  readonly renew: (used: string | undefined) => Effect.Effect<void, Failure>
}

/** Many clients that come back at once wait for the server's processor: much longer than a request may take. */
const longest = 30_000

const again = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")])

const isOff = ({ detail }: Failure): boolean => /authentication is not enabled/.test(detail)

export const make = Effect.fnUntraced(function*(
  connections: Connections,
  { password, username }: NonNullable<Settings["login"]>
): Effect.fn.Return<Login, never, Scope.Scope> {
  // Closed after what was made later: a session that is closed with the layer may need a login for that.
  const scope = yield* Scope.fork(yield* Effect.scope)
  let token: string | undefined
  let running: Fiber.Fiber<void, Failure> | undefined

  const authenticate = ({ driver }: Connection, secret: Redacted.Redacted) =>
    Effect.tryPromise({
      try: () =>
        driver.auth.authenticate(
          { name: username, password: Redacted.value(secret) },
          { deadline: grpcDeadline(longest) }
        ),
      catch: (error): Failure => {
        const failure = classify(error)
        return failure._tag === "Failure" ? failure : noLeaseAsked
      }
    })

  const attempt = Effect.gen(function*() {
    const secret = yield* Effect.mapError(password, (problem) => badOption(`password: ${problem}`))
    const connection = yield* connections.current
    token = yield* authenticate(connection, secret).pipe(
      Effect.map((answer): string | undefined => answer.token),
      // Credentials come first, and `auth enable` later.
      Effect.catchIf(isOff, () => Effect.undefined),
      Effect.tapError((failure) => Effect.sync(() => failure.broken && connections.discard(connection)))
    )
  })

  const login = attempt.pipe(
    Effect.retry({ schedule: again, while: ({ passes }) => passes }),
    Effect.timeoutOrElse({ duration: longest, orElse: () => Effect.fail(loginPending) })
  )

  return {
    token: () => token,
    isRunning: () => running !== undefined && running.pollUnsafe() === undefined,
    renew: (used) =>
      Effect.suspend(() => {
        if (used !== token) return Effect.void
        if (running !== undefined && running.pollUnsafe() === undefined) return Fiber.join(running)
        return Effect.flatMap(Effect.forkIn(login, scope), (fiber) => {
          running = fiber
          return Fiber.join(fiber)
        })
      })
  }
})
