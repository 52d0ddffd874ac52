/**
 * Passwords as users give them, read anew at each connect, because those of a cloud are good for some minutes only.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { oneLine, withoutCredentials } from "../internal/config/show.ts"

/**
 * A secret as an option takes it: a text, a `Redacted` one, or an effect that is run at each connect and gives one.
 *
 * @category models
 * @since 0.1.0
 */
export type Input = string | Redacted.Redacted | Effect.Effect<Redacted.Redacted, unknown>

/**
 * A secret as a backend uses it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Secret {
  /**
   * The secret of now, to be run at each connect. Fails with a sentence that holds no secret, and after 30 seconds without
   * one.
   */
  readonly get: Effect.Effect<Redacted.Redacted, string>
  /** A text without what this secret was so far: for what a server or a driver said. */
  readonly hide: (text: string) => string
}

const expected = "expected a text, a Redacted text, or an effect that gives one"

const isEffect = (u: unknown): u is Effect.Effect<unknown, unknown> => Effect.isEffect(u)

// Shorter ones are found in every text.
const shortestHidden = 3

// What was given before is of no use any more, but a server may still quote it.
const mostRemembered = 4

/** How long an effect that gives a secret may take: a connection waits for it, and another is not made meanwhile. */
const longest = "30 seconds"

// An interruption is one of something that the effect waited for: an interrupted connect does not come here.
const failure = (cause: Cause.Cause<unknown>) =>
  Effect.fail(
    Cause.hasInterruptsOnly(cause)
      ? "getting it was interrupted"
      : `getting it failed (${withoutCredentials(oneLine(Cause.squash(cause)))})`
  )

const make = (read: Effect.Effect<unknown, unknown>): Secret => {
  let seen: ReadonlyArray<string> = []
  const remember = (text: string): void => {
    if (text.length < shortestHidden || seen.includes(text)) return
    // The longest first: a secret may be part of another one.
    seen = [text, ...seen].slice(0, mostRemembered).toSorted((a, b) => b.length - a.length)
  }
  return {
    get: Effect.catchCause(read, failure).pipe(
      Effect.timeoutOrElse({ duration: longest, orElse: () => Effect.fail(`getting it took more than ${longest}`) }),
      Effect.flatMap((given) => {
        const text = Redacted.isRedacted(given) ? Redacted.value(given) : given
        if (typeof text !== "string") return Effect.fail("it is no text")
        remember(text)
        return Effect.succeed(Redacted.make(text))
      })
    ),
    hide: (text) => seen.reduce((text, secret) => text.replaceAll(secret, "<redacted>"), text)
  }
}

/**
 * Reads a secret as an option holds it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const read = (input: unknown): Result.Result<Secret, string> => {
  if (isEffect(input)) return Result.succeed(make(input))
  const text = Redacted.isRedacted(input) ? Redacted.value(input) : input
  // Redacted, because an effect shows its value when it is printed.
  return typeof text === "string" ? Result.succeed(make(Effect.succeed(Redacted.make(text)))) : Result.fail(expected)
}
