import * as Effect from "effect/Effect"
import type { Definition } from "./Case.ts"
import { failsTo, failsToSay, need, open, patience, within } from "./Case.ts"

export const tls: ReadonlyArray<Definition> = [
  {
    name: "TLS with an authority of one's own has locks",
    needs: "encrypted",
    run: ({ adapter, request }) =>
      Effect.gen(function*() {
        const { trusting } = yield* need(adapter.encrypted)
        const client = yield* open(adapter.make(trusting))
        const held = request()
        yield* within(client.acquire(held), patience, "it is had")
        yield* client.release(held)
      })
  },
  {
    name: "no TLS where there must be some is one clear error",
    needs: "encrypted",
    run: (kit) =>
      Effect.gen(function*() {
        const encrypted = yield* need(kit.adapter.encrypted)
        yield* failsTo(kit, encrypted.server, Effect.scoped(kit.adapter.make(encrypted.plain)))
      })
  },
  {
    name: "a certificate that is not trusted, or is for another name, says what to set",
    needs: "encrypted",
    run: (kit) =>
      Effect.gen(function*() {
        const { expectingAnotherName, server, trustingNode } = yield* need(kit.adapter.encrypted)
        yield* failsToSay(kit, server, trustingNode, "tls.ca")
        yield* failsToSay(kit, server, expectingAnotherName, "tls.serverName")
      })
  }
]
