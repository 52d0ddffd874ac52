import type { LockRequest } from "@dlock/core"
import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Queue, Redacted } from "effect"
import { createClient } from "node-zookeeper-client"
import * as Net from "node:net"
import { type Client, type Events, isDriver } from "../src/internal/client.ts"
import { attach, open, type Opened } from "../src/internal/connection.ts"
import { remove, type Reply } from "../src/internal/requests.ts"

const noNode = -101
const nodeExists = -110
const throttled = -127

const request: LockRequest = {
  key: "orders/42",
  owner: `test/${crypto.randomUUID()}`,
  ttl: 30_000,
  spare: 0,
  onLost: () => {},
  onWanted: () => {}
}

const create = 1
const getData = 4
const getChildren = 12
const ephemeralSequential = 3

const ints = (...numbers: ReadonlyArray<number>): Buffer => {
  const buffer = Buffer.alloc(4 * numbers.length)
  numbers.forEach((number, i) => buffer.writeInt32BE(number, 4 * i))
  return buffer
}

const frame = (body: Buffer): Buffer => Buffer.concat([ints(body.length), body])

const welcome = frame(Buffer.concat([ints(0, 10_000, 0, 7, 16), Buffer.alloc(16)]))

const answer = (xid: number, code: number): Buffer => frame(ints(xid, 0, 9, code))

/** What a server gets: the number and the type of a request, its path, and its last four bytes: a `create`'s flags. */
interface Request {
  readonly xid: number
  readonly type: number
  readonly path: string
  readonly flags: number
}

const text = (value: string): Buffer => Buffer.concat([ints(Buffer.byteLength(value)), Buffer.from(value)])

/** An answer that says more than a code. */
const tell = (xid: number, ...payload: ReadonlyArray<Buffer>): Buffer =>
  frame(Buffer.concat([ints(xid, 0, 9, 0), ...payload]))

/** A server that welcomes each connection, and sends what `onRequest` returns. */
const scripted = (onRequest: (request: Request) => Buffer | undefined) =>
  Effect.gen(function*() {
    const sockets = new Set<Net.Socket>()
    const server = yield* Effect.acquireRelease(
      Effect.callback<Net.Server>((resume) => {
        const server = Net.createServer((socket) => {
          let pending = Buffer.alloc(0)
          let isGreeted = false
          sockets.add(socket.on("error", () => {}))
          socket.on("data", (chunk: Buffer) => {
            pending = Buffer.concat([pending, chunk])
            while (pending.length >= 4 && pending.length >= 4 + pending.readInt32BE()) {
              const body = pending.subarray(4, 4 + pending.readInt32BE())
              pending = pending.subarray(4 + body.length)
              if (isGreeted) {
                const [xid, type, flags] = [body.readInt32BE(), body.readInt32BE(4), body.readInt32BE(body.length - 4)]
                const path = body.length < 12 ? "" : body.toString("utf8", 12, 12 + body.readInt32BE(8))
                const reply = onRequest({ xid, type, path, flags })
                if (reply !== undefined) socket.write(reply)
              } else socket.write(welcome)
              isGreeted = true
            }
          })
        }).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          server.close()
        })
    )
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const say = (bytes: Buffer) =>
      Effect.sync(() => {
        for (const socket of sockets) socket.write(bytes)
      })
    const cut = Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
      sockets.clear()
    })
    return { addr: `127.0.0.1:${port}`, address: { host: "127.0.0.1", port }, say, cut }
  })

/** A server that answers only as the test says. */
const manual = Effect.gen(function*() {
  const numbers = yield* Queue.unbounded<number>()
  const server = yield* scripted(({ xid }) => {
    Queue.offerUnsafe(numbers, xid)
    return undefined
  })
  return { ...server, nextXid: Queue.take(numbers) }
})

/** A server that answers each request with a number. */
const answering = Effect.fnUntraced(function*(codeOf: (request: Request) => number) {
  let requests = 0
  const server = yield* scripted((request) => {
    requests += 1
    return answer(request.xid, codeOf(request))
  })
  return { ...server, requests: () => requests }
})

const holder = `_c_${crypto.randomUUID()}-lock-0000000000`

/** A server on which another process holds every key; it refuses each watch, and tells when that was. */
const refusingWatches = Effect.gen(function*() {
  const watches = yield* Queue.unbounded<number>()
  const clock = yield* Clock.Clock
  let own = ""
  const { addr } = yield* scripted(({ flags, path, type, xid }) => {
    if (type === create && flags === ephemeralSequential) {
      own = `${path}0000000001`
      return tell(xid, text(own))
    }
    if (type === getChildren) {
      const names = own === "" ? [] : [holder, own.slice(own.lastIndexOf("/") + 1)]
      return tell(xid, ints(names.length), ...names.map(text), Buffer.alloc(68))
    }
    if (type !== getData) return answer(xid, noNode)
    Queue.offerUnsafe(watches, Number(clock.monotonicTimeNanosUnsafe()) / 1e6)
    return answer(xid, throttled)
  })
  return { addr, nextWatch: Queue.take(watches) }
})

type Make = (events: Events, now: () => number) => Opened

const connected = (make: Make) =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    return Effect.map(
      Effect.acquireRelease(
        Effect.callback<Opened>((resume) => {
          const onConnected = () => resume(Effect.sync(() => opened))
          const opened = make({ onConnecting: () => {}, onConnected, onEnded: () => {} }, now)
        }),
        ({ close }) => close
      ),
      ({ client }) => client
    )
  })

const opened = (address: { readonly host: string, readonly port: number }) =>
  connected((events, now) =>
    open(
      {
        servers: [address],
        sessionTimeout: 10_000,
        commandTimeout: 5000,
        credentials: undefined,
        fork: Effect.runFork
      },
      events,
      now
    )
  )

/** Sends one request; the effect that it returns has its answer. */
const ask = (client: Client) =>
  Effect.sync(() => {
    const replies = Effect.runSync(Queue.unbounded<Reply | undefined>())
    client.send([remove("/nowhere")], (all) => Queue.offerUnsafe(replies, all?.[0]))
    return Queue.take(replies)
  })

describe("the client", () => {
  it.live("gives an error without a name to the request that it answers", () =>
    Effect.gen(function*() {
      const { address, nextXid, say } = yield* manual
      const client = yield* opened(address)
      const first = yield* ask(client)
      const second = yield* ask(client)
      const numbers = [yield* nextXid, yield* nextXid]
      yield* say(answer(numbers[0] ?? -1, -127))
      yield* say(answer(numbers[1] ?? -1, 0))
      assert.strictEqual((yield* first)?.code, -127, "the first is told the error")
      assert.strictEqual((yield* second)?.code, 0, "the second has its own answer")
    }))

  it.live("reads many answers that come at once, and one that comes in pieces", () =>
    Effect.gen(function*() {
      const { address, nextXid, say } = yield* manual
      const client = yield* opened(address)
      const questions = yield* Effect.forEach(Array.from({ length: 2000 }), () => ask(client))
      const numbers = yield* Effect.forEach(questions, () => nextXid)
      const all = Buffer.concat(numbers.map((xid, i) => answer(xid, i === 7 ? -127 : -101)))
      const cut = all.length - 6
      yield* say(all.subarray(0, cut))
      yield* Effect.sleep(20)
      yield* say(all.subarray(cut))
      const codes = yield* Effect.forEach(questions, (reply) => Effect.map(reply, (reply) => reply?.code))
      assert.deepStrictEqual(codes, questions.map((_, i) => i === 7 ? -127 : -101))
    }), { timeout: 30_000 })

  it.live("leaves a connection that talks nonsense", () =>
    Effect.gen(function*() {
      const { address, nextXid, say } = yield* manual
      const client = yield* opened(address)
      const question = yield* ask(client)
      yield* nextXid
      yield* say(ints(-4, -4, 0))
      assert.isUndefined(yield* question)
    }))

  it.live("goes on when the driver's numbers for requests are used up", () =>
    Effect.gen(function*() {
      const { addr, nextXid, say } = yield* manual
      const driver = createClient(addr, { sessionTimeout: 10_000 })
      if (!isDriver(driver)) return assert.fail("the driver is another one")
      driver.connectionManager.xid = 2 ** 31 - 1
      const client = yield* connected((events, now) => {
        driver.connect()
        return attach(driver, events, now)
      })
      for (let i = 0; i < 3; i++) {
        const question = yield* ask(client)
        yield* say(answer(yield* nextXid, 0))
        assert.strictEqual((yield* question)?.code, 0)
      }
      driver.connectionManager.socket?.destroy()
      driver.connectionManager.findNextServer = () => {}
    }))
})

describe("a request ends, after few tries,", () => {
  it.live("when its parents vanish again and again", () =>
    Effect.gen(function*() {
      const { addr, requests } = yield* answering(({ flags, type }) =>
        type === create && flags !== ephemeralSequential ? nodeExists : noNode
      )
      const client = yield* ZooKeeperLock.make({ servers: addr, commandTimeout: "2 seconds" })
      for (const waits of [true, false]) {
        const before = requests()
        const asking = waits ? Effect.asVoid(client.acquire(request)) : Effect.asVoid(client.tryAcquire(request))
        const error = yield* Effect.flip(asking)
        // On a busy machine the time is over in the midst of the last try.
        assert.include(["Rejected", "Timeout"], error.reason)
        if (error.reason === "Rejected") assert.include(error.message, "again and again")
        assert.isBelow(requests() - before, 150)
        yield* client.release(request)
      }
    }), { timeout: 30_000 })

  it.live("when the server is busy for longer than the command timeout", () =>
    Effect.gen(function*() {
      let code = noNode
      const { addr, requests } = yield* answering(() => code)
      const client = yield* ZooKeeperLock.make({ servers: addr, commandTimeout: "500 millis" })
      code = throttled
      const verbs = {
        acquire: client.acquire(request),
        tryAcquire: client.tryAcquire(request),
        inspect: client.inspect(request.key),
        ping: client.ping
      }
      for (const [name, verb] of Object.entries(verbs)) {
        const before = requests()
        const error = yield* Effect.flip(Effect.asVoid(verb))
        assert.strictEqual(error.reason, "Unreachable", name)
        assert.isBelow(requests() - before, 80, `${name} does not hammer it`)
      }
      code = noNode
      yield* client.ping
    }), { timeout: 30_000 })

  it.live("with pauses that grow, when the server refuses to watch the node ahead", () =>
    Effect.gen(function*() {
      const { addr, nextWatch } = yield* refusingWatches
      const client = yield* ZooKeeperLock.make({ servers: addr })
      yield* Effect.forkScoped(client.acquire(request))
      const times = yield* Effect.replicateEffect(nextWatch, 7)
      const pauses = times.slice(1).map((time, i) => time - (times[i] ?? time))
      // 20, 40, .. 500 ms: a timer rings up to a millisecond early.
      pauses.forEach((pause, i) => assert.isAtLeast(pause, Math.min(20 * 2 ** i, 500) - 2, `pause ${i}`))
    }), { timeout: 30_000 })
})

describe("a password that is not given", () => {
  const kinds: ReadonlyArray<readonly [string, Effect.Effect<never>]> = [
    ["hangs", Effect.never],
    ["is interrupted", Effect.interrupt],
    ["dies", Effect.die("no vault")]
  ]
  for (const [name, failing] of kinds) {
    it.live(`because its effect ${name} is told, and asked for again`, () =>
      Effect.gen(function*() {
        const { addr, cut } = yield* answering(() => noNode)
        let fails = false
        const password = Effect.suspend(() => {
          if (!fails) return Effect.succeed(Redacted.make("open sesame"))
          fails = false
          return failing
        })
        const client = yield* ZooKeeperLock.make({
          servers: addr,
          username: "app",
          password,
          commandTimeout: "400 millis"
        })
        fails = true
        yield* cut
        const error = yield* Effect.flip(client.ping)
        assert.strictEqual(error.reason, "Unreachable")
        assert.include(error.message, "password: ")
        yield* Effect.retry(client.ping, { times: 10 })
      }), { timeout: 30_000 })
  }
})
