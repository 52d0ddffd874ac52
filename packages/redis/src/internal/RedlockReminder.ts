/**
 * A give-back that a server did not answer is sent again until it is, or until the lease would have ended by itself.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

const first = Duration.millis(50)
const longest = Duration.seconds(1)

export const remind = <A, E>(send: Effect.Effect<A, E>, now: () => bigint, until: bigint): Effect.Effect<void> => {
  const again = (pause: Duration.Duration): Effect.Effect<void> =>
    Effect.andThen(
      Effect.sleep(pause),
      Effect.suspend(() =>
        now() >= until
          ? Effect.void
          : Effect.matchEffect(send, {
            onFailure: () => again(Duration.min(Duration.times(pause, 2), longest)),
            onSuccess: () => Effect.void
          })
      )
    )
  return again(first)
}
