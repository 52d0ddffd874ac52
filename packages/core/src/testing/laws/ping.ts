import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Definition } from "../Case.ts"

export const ping: ReadonlyArray<Definition> = [
  {
    law: "ping",
    name: "it succeeds while locks can be taken, and takes none",
    run: Effect.fnUntraced(function*({ a, b, expectFree, key, newRequest, patience, take, within }) {
      const holder = newRequest(key())
      yield* take(a, holder, "a free key is granted")
      for (const client of [a, b]) yield* within(client.ping, patience, "ping is answered")
      assert.notStrictEqual(yield* a.release(holder), "gone", "ping ends no grant")
      yield* expectFree(holder.key, "a released key is free")
    })
  }
]
