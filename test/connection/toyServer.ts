/**
 * A toy lock server in this process: lines of text over TCP or TLS. It can be killed and frozen as a real one can.
 */
import type { ConnectionTest } from "@dlock/core/testing"
import { Effect } from "effect"
import type { Scope } from "effect"
import * as Net from "node:net"
import * as Tls from "node:tls"

export interface Setup {
  readonly password?: string | undefined
  readonly tls?: Tls.TlsOptions | undefined
  /** Commands that this user may not use. */
  readonly forbidden?: ReadonlyArray<string> | undefined
  /** Waiters keep their places when their connections end. */
  readonly sticky?: boolean | undefined
  /** It forgets which owners released, so that what arrives late is granted. */
  readonly forgetful?: boolean | undefined
}

interface Waiter {
  readonly owner: string
  readonly reply: (text: string) => void
}

const host = "127.0.0.1"

/** What the server knows: it survives a kill. */
const makeStore = (forgetful: boolean) => {
  const holders = new Map<string, { readonly owner: string, readonly token: number }>()
  const lines = new Map<string, Array<Waiter>>()
  const released = new Set<string>()
  let tokens = 0
  const grant = (key: string, owner: string): string => {
    holders.set(key, { owner, token: ++tokens })
    return `granted ${tokens}`
  }
  const serveNext = (key: string): void => {
    const next = lines.get(key)?.shift()
    if (next !== undefined) next.reply(grant(key, next.owner))
  }
  const leave = (owner: string): void => {
    for (const [key, line] of lines) lines.set(key, line.filter((waiter) => waiter.owner !== owner))
  }
  return {
    leave: (reply: Waiter["reply"]): void => {
      for (const [key, line] of lines) lines.set(key, line.filter((waiter) => waiter.reply !== reply))
    },
    run: (command: string, [key = "", owner = ""]: ReadonlyArray<string>, reply: Waiter["reply"]): void => {
      const holder = holders.get(key)
      if ((command === "TRY" || command === "ACQ") && released.has(owner)) return reply("none")
      if ((command === "TRY" || command === "ACQ") && holder?.owner === owner) return reply(`granted ${holder.token}`)
      if (command === "TRY") return reply(holder === undefined ? grant(key, owner) : "none")
      if (command === "ACQ" && holder === undefined) return reply(grant(key, owner))
      if (command === "ACQ") return void lines.set(key, [...lines.get(key) ?? [], { owner, reply }])
      if (command === "REN") return reply(holder?.owner === owner ? "renewed" : "none")
      if (command === "INS") return reply(holder === undefined ? "free" : `held ${holder.owner}`)
      if (command !== "REL") return reply("pong")
      if (!forgetful) released.add(owner)
      leave(owner)
      if (holder?.owner !== owner) return reply("gone")
      holders.delete(key)
      reply("released")
      serveNext(key)
    }
  }
}

/** A server on a free port, until the scope closes. */
export const toyServer = (
  { forbidden = [], forgetful = false, password, sticky = false, tls }: Setup = {}
): Effect.Effect<
  ConnectionTest.Server,
  never,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const store = makeStore(forgetful)
    const sockets = new Set<Net.Socket>()
    let server: Net.Server | undefined
    let port = 0
    let frozen = false
    const serve = (socket: Net.Socket): void => {
      sockets.add(socket)
      let known = password === undefined
      let rest = ""
      const replies = new Set<Waiter["reply"]>()
      socket.on("error", () => {})
      socket.on("close", () => {
        sockets.delete(socket)
        if (!sticky) replies.forEach(store.leave)
      })
      if (frozen) socket.pause()
      else socket.write("toy 1\n")
      socket.on("data", (data) => {
        const lines = (rest + String(data)).split("\n")
        rest = lines.pop() ?? ""
        for (const line of lines) {
          const [id = "", command = "", ...args] = line.split(" ")
          const reply = (text: string) => void socket.write(`${id} ${text}\n`)
          replies.add(reply)
          if (command === "AUTH") known ||= args[0] === password
          if (!known) reply(`NOAUTH wrong password in ${line}`)
          else if (forbidden.includes(command)) reply(`NOPERM ${command} is not permitted`)
          else store.run(command, args, reply)
        }
      })
    }
    const start = Effect.callback<void>((resume) => {
      server = tls === undefined ? Net.createServer(serve) : Tls.createServer(tls, serve)
      server.on("tlsClientError", () => {})
      server.listen(port, host, () => {
        const address = server?.address()
        if (typeof address === "object" && address !== null) port = address.port
        resume(Effect.void)
      })
    })
    const kill = Effect.callback<void>((resume) => {
      if (server?.listening !== true) return resume(Effect.void)
      server.close(() => resume(Effect.void))
      sockets.forEach((socket) => socket.destroy())
    })
    yield* Effect.acquireRelease(start, () => kill)
    return {
      host,
      port,
      kill,
      start,
      pause: Effect.sync(() => {
        frozen = true
        sockets.forEach((socket) => socket.pause())
      }),
      resume: Effect.sync(() => {
        frozen = false
        sockets.forEach((socket) => socket.resume())
      })
    }
  })
