/**
 * Proxies in front of etcd that know more than `harness/Proxy.ts`: which call of gRPC the bytes belong to, and which
 * connections were there at some moment.
 */
import { Effect } from "effect"
import * as Net from "node:net"

/** A frame of HTTP/2. */
interface Frame {
  readonly type: number
  readonly stream: number
  readonly payload: Buffer
}

const data = 0
const headers = 1

/** What a client of HTTP/2 says first. */
const prefaceLength = 24

/** Cuts what flows in one direction into frames; `skip` bytes come before the first. */
const frameReader = (skip: number) => {
  let rest = Buffer.alloc(0)
  let toSkip = skip
  return (bytes: Buffer): ReadonlyArray<Frame> => {
    rest = Buffer.concat([rest, bytes])
    const skipped = Math.min(toSkip, rest.length)
    toSkip -= skipped
    rest = rest.subarray(skipped)
    const frames: Array<Frame> = []
    while (rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
      const length = rest.readUIntBE(0, 3)
      frames.push({
        type: rest.readUInt8(3),
        stream: rest.readUInt32BE(5) & 0x7fffffff,
        payload: rest.subarray(9, 9 + length)
      })
      rest = rest.subarray(9 + length)
    }
    return frames
  }
}

const addrOf = (listener: Net.Server): string => {
  const address = listener.address()
  return `127.0.0.1:${typeof address === "object" ? address?.port : 0}`
}

const connectTo = (endpoint: string): Net.Socket => {
  const [host = "", port = ""] = endpoint.split(":")
  return Net.connect(Number(port), host)
}

interface Road {
  readonly listener: Net.Server
  readonly close: () => void
}

const listening = <A extends Road>(make: () => A) =>
  Effect.acquireRelease(
    Effect.callback<A>((resume) => {
      const road = make()
      road.listener.listen(0, "127.0.0.1", () => resume(Effect.succeed(road)))
    }),
    (road) => Effect.sync(() => road.close())
  )

/** A proxy that counts what clients send, can be led to another server, and can lose the reply to one call. */
export const turnout = (endpoint: string) => listening(() => new Turnout(endpoint))

/**
 * A proxy that freezes the connections of now, while new ones pass: what a firewall does that has forgotten them. When
 * they thaw, what was sent on them arrives, with the pauses that were between.
 */
export const freezer = (endpoint: string) => listening(() => new Freezer(endpoint))

class Turnout {
  readonly listener: Net.Server
  /** How many messages clients have sent. */
  sent = 0
  /** How many replies were lost. */
  lost = 0
  private readonly sockets = new Set<Net.Socket>()
  private target: string
  /** What the call contains whose reply is to be lost. */
  private doomed: string | undefined

  constructor(target: string) {
    this.target = target
    this.listener = Net.createServer((client) => this.join(client, connectTo(this.target)))
  }

  get addr(): string {
    return addrOf(this.listener)
  }

  /** Ends the connections of now; later ones lead there. */
  lead(target: string): Effect.Effect<void> {
    return Effect.sync(() => {
      this.target = target
      for (const socket of this.sockets) socket.destroy()
    })
  }

  /**
   * The server gets the next message that contains this text, and its answer is lost with the connection. Other calls
   * are not touched until then, nor is a copy of the message that comes later.
   */
  loseReplyTo(text: string): Effect.Effect<void> {
    return Effect.sync(() => {
      this.doomed = text
    })
  }

  close(): void {
    this.listener.close()
    for (const socket of this.sockets) socket.destroy()
  }

  private join(client: Net.Socket, server: Net.Socket): void {
    const [framesOut, framesIn] = [frameReader(prefaceLength), frameReader(0)]
    let doomedStream: number | undefined
    client.on("data", (bytes) => {
      for (const { payload, stream, type } of framesOut(bytes)) {
        if (type !== data || payload.length === 0) continue
        this.sent++
        if (this.doomed === undefined || !payload.includes(this.doomed)) continue
        this.doomed = undefined
        doomedStream = stream
      }
      server.write(bytes)
    })
    server.on("data", (bytes) => {
      const isLost = framesIn(bytes).some(({ stream, type }) =>
        stream === doomedStream && (type === data || type === headers)
      )
      if (isLost) {
        this.lost++
        client.destroy()
      } else client.write(bytes)
    })
    for (const [socket, other] of [[client, server], [server, client]] as const) {
      this.sockets.add(socket)
      socket.on("error", () => {})
      socket.on("end", () => other.end())
      socket.on("close", () => {
        this.sockets.delete(socket)
        other.destroy()
      })
    }
  }
}

class Freezer {
  readonly listener: Net.Server
  /** Whether connections that come freeze at once. */
  freezesNew = false
  readonly freeze = Effect.sync(() => {
    for (const socket of this.sockets) if (!this.frozen.has(socket)) this.frozen.set(socket, [])
  })
  readonly thaw = Effect.sync(() => {
    this.freezesNew = false
    const first = Math.min(...[...this.frozen.values()].flatMap((held) => held.slice(0, 1)).map(({ at }) => at))
    for (const held of this.frozen.values()) {
      for (const { at, bytes, to } of held) this.timers.push(setTimeout(() => to.write(bytes), at - first))
    }
    this.frozen.clear()
  })
  private readonly sockets = new Set<Net.Socket>()
  private readonly frozen = new Map<
    Net.Socket,
    Array<{ readonly at: number, readonly bytes: Buffer, readonly to: Net.Socket }>
  >()
  private readonly timers: Array<NodeJS.Timeout> = []

  constructor(endpoint: string) {
    this.listener = Net.createServer((client) => {
      const server = connectTo(endpoint)
      this.forward(client, server)
      this.forward(server, client)
    })
  }

  get addr(): string {
    return addrOf(this.listener)
  }

  close(): void {
    this.listener.close()
    for (const timer of this.timers) clearTimeout(timer)
    for (const socket of this.sockets) socket.destroy()
  }

  private forward(from: Net.Socket, to: Net.Socket): void {
    this.sockets.add(from)
    if (this.freezesNew) this.frozen.set(from, [])
    from.on("data", (bytes) => {
      const held = this.frozen.get(from)
      if (held === undefined) to.write(bytes)
      else held.push({ at: performance.now(), bytes, to })
    })
    from.on("error", () => {})
    from.on("close", () => {
      this.sockets.delete(from)
      if (!this.frozen.has(from)) to.destroy()
    })
  }
}
