import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Queue, Scope } from "effect"
import * as Net from "node:net"
import { host, reserve } from "./harness/Port.ts"
import { proxy } from "./harness/Proxy.ts"

/** What happens at one end of a connection; bytes come in whatever pieces TCP makes of them. */
type Happening = { readonly bytes: string } | "closed"

interface End {
  readonly write: (text: string) => Effect.Effect<void>
  readonly destroy: Effect.Effect<void>
  /** Waits for this text, and nothing else. */
  readonly reads: (text: string, message: string) => Effect.Effect<void>
  /** Waits for the end of the connection, and nothing else. */
  readonly closes: (message: string) => Effect.Effect<void>
  /** All that has happened and was not waited for. */
  readonly sofar: Effect.Effect<ReadonlyArray<Happening>>
}

const endOf = Effect.fnUntraced(function*(socket: Net.Socket): Effect.fn.Return<End> {
  const happenings = yield* Queue.unbounded<Happening>()
  socket.on("data", (bytes) => Queue.offerUnsafe(happenings, { bytes: bytes.toString() }))
  socket.on("error", () => {})
  socket.on("close", () => Queue.offerUnsafe(happenings, "closed"))
  return {
    write: (text) => Effect.sync(() => socket.write(text)),
    destroy: Effect.sync(() => socket.destroy()),
    reads: Effect.fnUntraced(function*(text, message) {
      let read = ""
      while (read.length < text.length) {
        const happening = yield* Queue.take(happenings)
        if (happening === "closed") assert.fail(`${message}: closed after "${read}"`)
        read += happening.bytes
      }
      assert.strictEqual(read, text, message)
    }),
    closes: Effect.fnUntraced(function*(message) {
      assert.strictEqual(yield* Queue.take(happenings), "closed", message)
    }),
    sofar: Queue.clear(happenings)
  }
})

/** A server that takes connections and says nothing of its own. */
const makeServer = Effect.gen(function*() {
  const accepted = yield* Queue.unbounded<End>()
  const sockets = new Set<Net.Socket>()
  const server = Net.createServer((socket) => {
    sockets.add(socket)
    Queue.offerUnsafe(accepted, Effect.runSync(endOf(socket)))
  })
  const port = yield* Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, host, () => {
        const address = server.address()
        resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
      })
    }),
    () =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
        server.close()
      })
  )
  return { host, port, accept: Queue.take(accepted), accepted: Queue.clear(accepted) }
})

const connect = (target: { readonly host: string, readonly port: number }): Effect.Effect<End, Error, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket, Error>((resume) => {
      const socket = Net.connect({ host: target.host, port: target.port })
      socket.once("connect", () => resume(Effect.succeed(socket)))
      socket.once("error", (error) => resume(Effect.fail(error)))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  ).pipe(Effect.flatMap(endOf))

/** A connection through a proxy, seen from both ends. */
const makeLink = Effect.gen(function*() {
  const server = yield* makeServer
  const between = yield* proxy(server)
  const near = yield* connect(between)
  const far = yield* server.accept
  return { server, between, near, far }
})

/** Long enough for everything that can arrive to have arrived. */
const aWhile = Effect.sleep("40 millis")

describe("proxy", () => {
  it.live("passes bytes and ends both ways", () =>
    Effect.gen(function*() {
      const { between, far, near } = yield* makeLink
      yield* near.write("question")
      yield* far.reads("question", "the server hears the client")
      yield* far.write("answer")
      yield* near.reads("answer", "the client hears the server")
      assert.strictEqual(yield* between.connections, 1, "one connection is open")
      assert.strictEqual(yield* between.pieces, 1, "the answer is not counted")
      yield* near.destroy
      yield* far.closes("the server learns that the client has left")
      assert.strictEqual(yield* between.connections, 0, "no connection is open")
    }))

  it.live("ends the client's connection when the server's ends, or is unreachable", () =>
    Effect.gen(function*() {
      const { far, near } = yield* makeLink
      yield* far.destroy
      yield* near.closes("the client learns that the server has gone")
      const nobody = yield* proxy({ host, port: yield* reserve })
      const client = yield* connect(nobody)
      yield* client.closes("the client learns that there is no server")
    }))

  it.live("blackhole holds back both ways and pass delivers, in order", () =>
    Effect.gen(function*() {
      const { between, far, near } = yield* makeLink
      yield* between.blackhole()
      yield* near.write("1")
      yield* far.write("a")
      yield* aWhile
      yield* near.write("2")
      yield* far.write("b")
      yield* aWhile
      assert.deepStrictEqual(yield* far.sofar, [], "nothing reaches the server")
      assert.deepStrictEqual(yield* near.sofar, [], "nothing reaches the client, and its connection stays open")
      yield* between.pass
      yield* far.reads("12", "the server gets all that was held back")
      yield* near.reads("ab", "the client gets all that was held back")
    }))

  it.live("blackhole of one direction leaves the other open", () =>
    Effect.gen(function*() {
      const { between, far, near } = yield* makeLink
      yield* between.blackhole("toClient")
      yield* near.write("question")
      yield* far.reads("question", "the server hears the client")
      yield* far.write("answer")
      yield* aWhile
      assert.deepStrictEqual(yield* near.sofar, [], "the answer is held back")
      yield* between.pass
      yield* near.reads("answer", "the answer is delivered")
      yield* between.blackhole("toServer")
      yield* far.write("news")
      yield* near.reads("news", "the client hears the server")
      yield* near.write("late")
      yield* aWhile
      assert.deepStrictEqual(yield* far.sofar, [], "the question is held back")
    }))

  it.live("a connection that is opened or closed behind a blackhole is news for the server only after it", () =>
    Effect.gen(function*() {
      const { between, far, near, server } = yield* makeLink
      yield* between.blackhole()
      yield* near.destroy
      const late = yield* connect(between)
      yield* late.write("late")
      yield* aWhile
      assert.deepStrictEqual(yield* far.sofar, [], "the server believes the client is there")
      assert.deepStrictEqual(yield* server.accepted, [], "the server knows of no other client")
      yield* between.pass
      yield* far.closes("the server learns that the client has left")
      const there = yield* server.accept
      yield* there.reads("late", "the server hears the other client")
    }))

  it.live("drop swallows, and a connection with a gap does not come back", () =>
    Effect.gen(function*() {
      const { between, far, near, server } = yield* makeLink
      const untouched = yield* connect(between)
      const there = yield* server.accept
      yield* between.drop("toClient")
      yield* near.write("question")
      yield* far.reads("question", "the server hears the client")
      yield* far.write("answer")
      yield* aWhile
      assert.deepStrictEqual(yield* near.sofar, [], "the answer is lost")
      yield* between.pass
      yield* near.closes("the client's connection is broken")
      yield* far.closes("the server's connection is broken")
      yield* there.write("hello")
      yield* untouched.reads("hello", "a connection without a gap goes on")
    }))

  it.live("delay delivers later, in order", () =>
    Effect.gen(function*() {
      const { between, far, near } = yield* makeLink
      yield* between.delay("100 millis")
      const started = performance.now()
      yield* near.write("question")
      yield* far.reads("question", "the server hears the client")
      yield* far.write("answer")
      yield* near.reads("answer", "the client hears the server")
      assert.isAtLeast(performance.now() - started, 199, "both ways are slow")
      yield* near.write("1")
      yield* between.delay("1 millis")
      yield* near.write("2")
      yield* far.reads("12", "nothing overtakes")
      yield* between.delay("1 hour")
      yield* near.write("3")
      yield* aWhile
      yield* between.pass
      yield* far.reads("3", "pass delivers at once")
    }))

  it.live("cut destroys what is open and takes new connections", () =>
    Effect.gen(function*() {
      const { between, far, near, server } = yield* makeLink
      yield* between.cut
      yield* near.closes("the client's connection is gone")
      yield* far.closes("the server's connection is gone")
      const again = yield* connect(between)
      yield* again.write("again")
      yield* (yield* server.accept).reads("again", "a new connection works")
    }))

  it.live("what was held back on a connection that is cut stays lost", () =>
    Effect.gen(function*() {
      const { between, near, server } = yield* makeLink
      yield* between.blackhole()
      const late = yield* connect(between)
      yield* near.write("lost")
      yield* late.write("lost")
      yield* aWhile
      yield* between.cut
      yield* between.pass
      yield* aWhile
      assert.deepStrictEqual(yield* server.accepted, [], "a dead connection is not opened")
      yield* between.delay("30 millis")
      yield* connect(between)
      yield* Effect.sleep("15 millis")
      yield* between.cut
      yield* aWhile
      assert.deepStrictEqual(yield* server.accepted, [], "a dead connection is not opened late")
    }))

  it.live("refuse takes no connections until pass", () =>
    Effect.gen(function*() {
      const { between, near, server } = yield* makeLink
      yield* between.refuse
      yield* near.closes("the client's connection is gone")
      const error = yield* Effect.flip(connect(between))
      assert.include(error.message, "ECONNREFUSED", "nothing listens")
      yield* between.pass
      const again = yield* connect(between)
      yield* again.write("again")
      yield* (yield* server.accept).reads("again", "a new connection works")
    }))

  it.live("dropNextReply loses one answer and its connection", () =>
    Effect.gen(function*() {
      const { between, far, near, server } = yield* makeLink
      yield* between.dropNextReply
      yield* near.write("question")
      yield* far.reads("question", "the server hears the client")
      yield* far.write("answer")
      yield* near.closes("the client's connection is gone, without the answer")
      const again = yield* connect(between)
      const there = yield* server.accept
      yield* there.write("hello")
      yield* again.reads("hello", "only one answer was lost")
    }))

  it.live("dropReplyTo loses the answer to one question that nothing unanswered is before", () =>
    Effect.gen(function*() {
      const { between, far, near, server } = yield* makeLink
      const dropped = yield* Effect.forkChild(between.dropReplyTo((bytes) => bytes.toString().startsWith("this")))
      yield* near.write("that")
      yield* far.reads("that", "the server hears the client")
      yield* near.write("this early")
      yield* far.reads("this early", "the server hears the client")
      yield* far.write("answers")
      yield* near.reads("answers", "it cannot be told which of two is answered")
      yield* near.write("this")
      yield* far.reads("this", "the server hears the client")
      yield* far.write("answer")
      yield* near.closes("the client's connection is gone, without the answer")
      yield* Fiber.join(dropped)
      const again = yield* connect(between)
      const there = yield* server.accept
      yield* again.write("this")
      yield* there.reads("this", "the server hears the client")
      yield* there.write("answer")
      yield* again.reads("answer", "only one answer was lost")
    }))

  it.live("strand tells the client of an end, and the server of what came before only after pass", () =>
    Effect.gen(function*() {
      const { between, far, near, server } = yield* makeLink
      yield* between.freeze
      yield* near.write("late")
      yield* aWhile
      yield* between.strand
      yield* near.closes("the client's connection is gone")
      const again = yield* connect(between)
      yield* again.write("again")
      yield* (yield* server.accept).reads("again", "a new connection works")
      assert.deepStrictEqual(yield* far.sofar, [], "nothing has arrived")
      yield* between.pass
      yield* far.reads("late", "it arrives")
      yield* far.closes("the server learns that the client has left")
    }))

  it.live("is gone when its scope closes", () =>
    Effect.gen(function*() {
      const server = yield* makeServer
      const scope = yield* Scope.make()
      const between = yield* Scope.provide(proxy(server), scope)
      const client = yield* connect(between)
      yield* Scope.close(scope, Exit.void)
      yield* client.closes("its connections are gone")
      assert.include((yield* Effect.flip(connect(between))).message, "ECONNREFUSED", "nothing listens")
    }))
})
