import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Queue } from "effect"
import { createClient } from "node-zookeeper-client"
import * as Net from "node:net"
import * as ZooKeeperClient from "../src/internal/ZooKeeperClient.ts"
import { isDriver } from "../src/internal/ZooKeeperDriver.ts"
import { remove, type Reply } from "../src/internal/ZooKeeperRequest.ts"

const ints = (...numbers: ReadonlyArray<number>): Buffer => {
  const buffer = Buffer.alloc(4 * numbers.length)
  numbers.forEach((number, i) => buffer.writeInt32BE(number, 4 * i))
  return buffer
}

const frame = (body: Buffer): Buffer => Buffer.concat([ints(body.length), body])

const welcome = frame(Buffer.concat([ints(0, 10_000, 0, 7, 16), Buffer.alloc(16)]))

const answer = (xid: number, code: number): Buffer => frame(ints(xid, 0, 9, code))

/** A server that takes one connection, and answers requests only as the test says. `numbers` are those of requests. */
const scripted = Effect.gen(function*() {
  const numbers = yield* Queue.unbounded<number>()
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
            const xid = pending.readInt32BE(4)
            pending = pending.subarray(4 + pending.readInt32BE())
            if (isGreeted) Queue.offerUnsafe(numbers, xid)
            else socket.write(welcome)
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
  const say = (...frames: ReadonlyArray<Buffer>) =>
    Effect.sync(() => {
      for (const socket of sockets) socket.write(Buffer.concat(frames))
    })
  return { addr: `127.0.0.1:${port}`, nextXid: Queue.take(numbers), say }
})

type Make = (events: ZooKeeperClient.Events, clock: Clock.Clock) => ZooKeeperClient.ZooKeeperClient

const connected = (make: Make) =>
  Effect.flatMap(Clock.Clock, (clock) =>
    Effect.acquireRelease(
      Effect.callback<ZooKeeperClient.ZooKeeperClient>((resume) => {
        const onConnected = () => resume(Effect.sync(() => client))
        const client = make({ onConnected, onEnded: () => {} }, clock)
      }),
      ({ close }) => close
    ))

const opened = (addr: string) =>
  connected((events, clock) =>
    ZooKeeperClient.open({ servers: [addr], sessionTimeout: 10_000, digest: undefined }, events, clock)
  )

/** Sends one request; the effect that it returns has its answer. */
const ask = (client: ZooKeeperClient.ZooKeeperClient) =>
  Effect.sync(() => {
    const replies = Effect.runSync(Queue.unbounded<Reply | undefined>())
    client.send([remove("/nowhere")], (all) => Queue.offerUnsafe(replies, all?.[0]))
    return Queue.take(replies)
  })

describe("the client", () => {
  it.live("gives an error without a name to the request that it answers, though nobody waits for that", () =>
    Effect.gen(function*() {
      const { addr, nextXid, say } = yield* scripted
      const client = yield* opened(addr)
      const first = yield* ask(client)
      const sentBefore = yield* Clock.monotonicTimeNanos
      yield* Effect.sleep(2)
      const second = yield* ask(client)
      const numbers = [yield* nextXid, yield* nextXid]
      client.giveUp(sentBefore)
      assert.isUndefined(yield* first, "the first is given up")
      yield* say(answer(numbers[0] ?? -1, -127))
      yield* say(answer(numbers[1] ?? -1, 0))
      assert.strictEqual((yield* second)?.code, 0, "the second has its own answer")
    }))

  it.live("reads many answers that come at once, and one that comes in pieces", () =>
    Effect.gen(function*() {
      const { addr, nextXid, say } = yield* scripted
      const client = yield* opened(addr)
      const questions = yield* Effect.forEach(Array.from({ length: 5000 }), () => ask(client))
      const numbers = yield* Effect.forEach(questions, () => nextXid)
      const all = Buffer.concat(numbers.map((xid, i) => answer(xid, i === 7 ? -127 : -101)))
      const cut = all.length - 6
      yield* say(all.subarray(0, cut))
      yield* Effect.sleep(20)
      yield* say(all.subarray(cut))
      const codes = yield* Effect.forEach(questions, (reply) => Effect.map(reply, (reply) => reply?.code))
      assert.deepStrictEqual(codes, questions.map((_, i) => i === 7 ? -127 : -101))
    }))

  it.live("leaves a connection that talks nonsense", () =>
    Effect.gen(function*() {
      const { addr, nextXid, say } = yield* scripted
      const client = yield* opened(addr)
      const question = yield* ask(client)
      yield* nextXid
      yield* say(ints(-4, -4, 0))
      assert.isUndefined(yield* question)
    }))

  it.live("goes on when the driver's numbers for requests are used up", () =>
    Effect.gen(function*() {
      const { addr, nextXid, say } = yield* scripted
      const driver = createClient(addr, { sessionTimeout: 10_000 })
      if (!isDriver(driver)) return assert.fail("the driver is another one")
      driver.connectionManager.xid = 2 ** 31 - 1
      const client = yield* connected((events, clock) => {
        driver.connect()
        return ZooKeeperClient.attach(driver, events, clock)
      })
      for (let i = 0; i < 3; i++) {
        const question = yield* ask(client)
        yield* say(answer(yield* nextXid, 0))
        assert.strictEqual((yield* question)?.code, 0)
      }
      driver.connectionManager.socket?.destroy()
      driver.connectionManager.connect = () => {}
    }))
})
