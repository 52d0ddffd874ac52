/**
 * A TCP proxy on a free port of 127.0.0.1, for partitions, latency and lost replies.
 *
 * It keeps to what TCP can do: bytes arrive in order or not at all, so a connection with a gap is never used again;
 * connections are opened and closed on the far side when that news gets through. It differs from a real partition in one
 * point: the handshake of a new connection succeeds on the near side also while everything is held back (not with
 * `refuse`).
 */
import { Duration, Effect } from "effect"
import type { Scope } from "effect"
import * as Net from "node:net"
import type { HarnessError } from "./HarnessError.ts"
import { host, reserve } from "./Port.ts"

/** Which way the bytes flow. */
export type Direction = "both" | "toServer" | "toClient"

/**
 * A TCP proxy and the faults that can be done to what flows through it.
 */
export interface Proxy {
  readonly host: string
  readonly port: number
  /** `host:port` */
  readonly addr: string
  /**
   * Heals: delivers what was held back, forwards everything at once, accepts connections. A connection that lost bytes
   * to `drop` is destroyed.
   */
  readonly pass: Effect.Effect<void>
  /** Holds back what flows, in order, until `pass`. Connections stay open. The other direction flows as before. */
  readonly blackhole: (direction?: Direction) => Effect.Effect<void>
  /** Swallows what flows from now on; it is never delivered. The other direction flows as before. */
  readonly drop: (direction?: Direction) => Effect.Effect<void>
  /** Delivers everything, both ways, this much later. */
  readonly delay: (duration: Duration.Input) => Effect.Effect<void>
  /** Destroys every live connection; what was held back on them is lost. New ones are accepted. */
  readonly cut: Effect.Effect<void>
  /** Destroys every live connection, and refuses new ones until `pass`. */
  readonly refuse: Effect.Effect<void>
  /** Swallows the next chunk that comes from the server, on whichever connection, then destroys that connection. */
  readonly dropNextReply: Effect.Effect<void>
  /**
   * Waits for a chunk for the server that `isIt`, on a connection where nothing is unanswered; swallows what the server
   * says next there, destroys that connection, and returns. Interrupted, it gives up.
   */
  readonly dropReplyTo: (isIt: (request: Buffer) => boolean) => Effect.Effect<void>
  /** Holds back what goes to the server on the live connections until `pass`; new ones are not concerned. */
  readonly freeze: Effect.Effect<void>
  /**
   * Destroys every live connection on the client's side only. What clients had sent is still under way: held back until
   * `pass`, and then delivered in order, and the end of the connection some time later: a server may drop requests whose
   * connection has ended. New connections are not concerned.
   */
  readonly strand: Effect.Effect<void>
  /** How many connections clients have open. */
  readonly connections: Effect.Effect<number>
  /** How many pieces clients have sent so far. What a client writes at once arrives as one piece, if it is short. */
  readonly pieces: Effect.Effect<number>
}

type Event =
  | { readonly _tag: "connect" }
  | { readonly _tag: "bytes", readonly bytes: Buffer }
  | { readonly _tag: "end" }
  | { readonly _tag: "close" }

/** One direction of one connection: events in order, each delivered when it is due and the road is open. */
interface Pipe {
  readonly push: (event: Event) => void
  readonly flush: () => void
  readonly hasGap: () => boolean
}

/** By how much the end of a stranded connection is later than what was sent on it. */
const endsLaterMillis = 300

interface Road {
  mode: "pass" | "blackhole" | "drop"
}

/** A request whose reply is to be swallowed. */
interface Wanted {
  readonly isIt: (request: Buffer) => boolean
  readonly done: () => void
}

/** A pair of sockets with a pipe each way. */
interface Link {
  readonly destroy: () => void
  readonly freeze: () => void
  readonly strand: () => void
  readonly heal: () => void
}

const makePipe = (
  road: Road,
  delayMillis: () => number,
  isOpen: () => boolean,
  deliver: (event: Event) => void
): Pipe => {
  const queue: Array<{ readonly event: Event, readonly due: number }> = []
  let gap = false
  let timer: NodeJS.Timeout | undefined

  const drain = (): void => {
    clearTimeout(timer)
    while (road.mode === "pass" && isOpen()) {
      const head = queue[0]
      if (head === undefined) return
      const early = head.due - performance.now()
      if (early > 0 && delayMillis() > 0) {
        timer = setTimeout(drain, early)
        return
      }
      queue.shift()
      deliver(head.event)
    }
  }

  return {
    push: (event) => {
      if (road.mode === "drop") gap = true
      if (gap) return
      queue.push({ event, due: performance.now() + delayMillis() })
      drain()
    },
    flush: drain,
    hasGap: () => gap
  }
}

/**
 * Starts a proxy in front of a server. It is gone, with its connections, when the scope closes.
 */
export const proxy = Effect.fnUntraced(function*(
  target: { readonly host: string, readonly port: number }
): Effect.fn.Return<Proxy, HarnessError, Scope.Scope> {
  const port = yield* reserve
  const toServer: Road = { mode: "pass" }
  const toClient: Road = { mode: "pass" }
  let delayMillis = 0
  let swallowReply = false
  let pieces = 0
  const wanted = new Set<Wanted>()
  const links = new Set<Link>()
  const clients = new Set<Net.Socket>()

  const accept = (client: Net.Socket): void => {
    const server = new Net.Socket({ allowHalfOpen: true }).setNoDelay(true)
    let destroyed = false
    let frozen = false
    let stranded = false
    let answered = true
    /** Its request is under way. */
    let doomed: Wanted | undefined
    const deliverTo = (socket: Net.Socket) => (event: Event): void => {
      if (destroyed) return
      if (event._tag === "connect") server.connect({ host: target.host, port: target.port })
      else if (event._tag === "close") socket.destroy()
      else if (socket.destroyed) return
      else if (event._tag === "end") socket.end()
      else socket.write(event.bytes)
    }
    const up = makePipe(toServer, () => delayMillis, () => !frozen, deliverTo(server))
    const down = makePipe(toClient, () => delayMillis, () => true, deliverTo(client))
    const link: Link = {
      destroy: () => {
        destroyed = true
        links.delete(link)
        client.destroy()
        server.destroy()
      },
      freeze: () => {
        frozen = true
      },
      strand: () => {
        frozen = true
        stranded = true
        client.destroy()
      },
      heal: () => {
        frozen = false
        if (up.hasGap() || down.hasGap()) return link.destroy()
        up.flush()
        down.flush()
        if (stranded) setTimeout(link.destroy, endsLaterMillis).unref()
      }
    }
    const forget = (): void => {
      if (client.closed && server.closed) links.delete(link)
    }
    const forward = (from: Net.Socket, pipe: Pipe): void => {
      // What a client still had under way on a frozen connection comes through before its end does.
      const isLate = (): boolean => {
        if (frozen && from === client) stranded = true
        return stranded
      }
      from.on("data", (bytes) => pipe.push({ _tag: "bytes", bytes }))
      from.on("end", () => isLate() || pipe.push({ _tag: "end" }))
      // What went wrong is told by `close`, which always follows.
      from.on("error", () => {})
      from.on("close", () => {
        if (!isLate()) pipe.push({ _tag: "close" })
        forget()
      })
    }
    links.add(link)
    clients.add(client)
    for (const event of ["end", "close"]) client.on(event, () => clients.delete(client))
    forward(client, {
      ...up,
      push: (event) => {
        if (event._tag === "bytes") {
          pieces++
          if (answered) doomed = [...wanted].find(({ isIt }) => isIt(event.bytes))
          answered = false
        }
        up.push(event)
      }
    })
    forward(server, {
      ...down,
      push: (event) => {
        if (event._tag !== "bytes") return down.push(event)
        answered = true
        const isDoomed = doomed !== undefined && wanted.delete(doomed)
        if (!swallowReply && !isDoomed) return down.push(event)
        if (!isDoomed) swallowReply = false
        link.destroy()
        doomed?.done()
      }
    })
    up.push({ _tag: "connect" })
  }

  const listener = Net.createServer({ allowHalfOpen: true, noDelay: true }, accept)
  const listen = Effect.callback<void>((resume) => {
    if (listener.listening) return resume(Effect.void)
    const onError = (cause: Error) => resume(Effect.die(cause))
    listener.once("error", onError)
    listener.listen({ host, port }, () => {
      listener.off("error", onError)
      resume(Effect.void)
    })
  })
  const cut = Effect.sync(() => {
    for (const link of links) link.destroy()
  })
  const close = Effect.andThen(
    cut,
    Effect.callback<void>((resume) => {
      if (!listener.listening) return resume(Effect.void)
      listener.close(() => resume(Effect.void))
    })
  )
  const setMode = (mode: Road["mode"]) => (direction: Direction = "both"): Effect.Effect<void> =>
    Effect.sync(() => {
      if (direction !== "toClient") toServer.mode = mode
      if (direction !== "toServer") toClient.mode = mode
    })

  yield* Effect.acquireRelease(listen, () => close)
  return {
    host,
    port,
    addr: `${host}:${port}`,
    pass: Effect.andThen(
      Effect.sync(() => {
        toServer.mode = toClient.mode = "pass"
        delayMillis = 0
        swallowReply = false
        for (const link of links) link.heal()
      }),
      listen
    ),
    blackhole: setMode("blackhole"),
    drop: setMode("drop"),
    delay: (duration) =>
      Effect.sync(() => {
        delayMillis = Duration.toMillis(duration)
      }),
    cut,
    refuse: close,
    dropNextReply: Effect.sync(() => {
      swallowReply = true
    }),
    dropReplyTo: (isIt) =>
      Effect.callback((resume) => {
        const one: Wanted = { isIt, done: () => resume(Effect.void) }
        wanted.add(one)
        return Effect.sync(() => wanted.delete(one))
      }),
    freeze: Effect.sync(() => {
      for (const link of links) link.freeze()
    }),
    strand: Effect.sync(() => {
      for (const link of links) link.strand()
    }),
    connections: Effect.sync(() => clients.size),
    pieces: Effect.sync(() => pieces)
  }
})
