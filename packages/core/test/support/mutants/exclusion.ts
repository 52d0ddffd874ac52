import { Effect, Option } from "effect"
import type { Mutant } from "./wrap.ts"
import { tokensOf } from "./wrap.ts"

/** The holder of the key. */
export const exclusion: ReadonlyArray<Mutant> = [
  {
    name: "a held key is granted a second time",
    caughtBy: "a held key is refused to every other owner, whichever client asks",
    make: (store) => ({
      ...store,
      tryAcquire: (request) =>
        Effect.map(
          store.tryAcquire(request),
          Option.orElse(() => Option.some({ validFrom: 0, ttl: request.ttl, tokens: tokensOf(0n) }))
        )
    })
  },
  {
    name: "acquire does not wait",
    caughtBy: "acquire waits for the holder and then excludes every other owner",
    make: (store) => ({
      ...store,
      acquire: (request) =>
        Effect.map(
          store.tryAcquire(request),
          Option.getOrElse(() => ({
            validFrom: 0,
            ttl: request.ttl,
            tokens: tokensOf(0n)
          }))
        )
    })
  },
  {
    name: "one grant in fifty goes to a key that is held",
    caughtBy: "many contenders over both clients count an unprotected counter exactly",
    make: (store) => {
      let n = 0
      return {
        ...store,
        acquire: (request) =>
          Effect.suspend(() =>
            ++n % 50 === 0
              ? Effect.succeed({ validFrom: 0, ttl: request.ttl, tokens: tokensOf(BigInt(n)) })
              : store.acquire(request)
          )
      }
    }
  }
]
