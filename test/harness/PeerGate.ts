/**
 * Stands before the peer port of an etcd member. Members tell of themselves when they call each other, so that what one
 * of them says and hears can be held back, without the others being cut off from each other.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import * as Net from "node:net"
import type { HarnessError } from "./HarnessError.ts"
import { host, reserve } from "./Port.ts"

/** A gate and who may pass it. */
export interface PeerGate {
  readonly port: number
  /** Nothing flows on connections whose caller is such a one, until this is said anew. Callers are members' ids, in hex. */
  readonly close: (isShut: (caller: string | undefined) => boolean) => Effect.Effect<void>
}

interface Link {
  readonly update: () => void
}

const callerIn = (bytes: Buffer): string | undefined =>
  /^X-Server-From: ([0-9a-f]+)/im.exec(bytes.toString("latin1"))?.[1]

const nobody = (_caller: string | undefined): boolean => false

/** A gate before this port; gone, with its connections, when the scope closes. */
export const peerGate = Effect.fnUntraced(function*(
  target: number
): Effect.fn.Return<PeerGate, HarnessError, Scope.Scope> {
  const port = yield* reserve
  const links = new Set<Link>()
  const sockets = new Set<Net.Socket>()
  let isShut = nobody

  const accept = (near: Net.Socket): void => {
    const far = Net.connect({ host, port: target, allowHalfOpen: true, noDelay: true })
    let caller: string | undefined
    let held: ReadonlyArray<Buffer> = []
    const link: Link = {
      update: () => {
        if (isShut(caller)) {
          near.pause()
          far.pause()
          return
        }
        for (const bytes of held) far.write(bytes)
        held = []
        near.resume()
        far.resume()
      }
    }
    links.add(link)
    near.on("data", (bytes) => {
      caller ??= callerIn(bytes)
      held = [...held, bytes]
      link.update()
    })
    far.on("data", (bytes) => near.write(bytes))
    for (const [from, to] of [[near, far], [far, near]] as const) {
      sockets.add(from)
      from.on("end", () => to.end())
      // What went wrong is told by `close`, which always follows.
      from.on("error", () => {})
      from.on("close", () => {
        sockets.delete(from)
        links.delete(link)
        to.destroy()
      })
    }
    link.update()
  }

  const listener = Net.createServer({ allowHalfOpen: true, noDelay: true }, accept)
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      listener.once("error", (cause) => resume(Effect.die(cause)))
      listener.listen({ host, port }, () => resume(Effect.void))
    }),
    () =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        listener.close(() => resume(Effect.void))
      })
  )
  return {
    port,
    close: (test) =>
      Effect.sync(() => {
        isShut = test
        for (const link of links) link.update()
      })
  }
})
