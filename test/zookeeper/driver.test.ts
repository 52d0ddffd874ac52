import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Scope } from "effect"
import * as Net from "node:net"
import { attempt, freshKey, until } from "../requests.ts"
import { childrenOf, lineOf, roadTo, ZooKeeper } from "./support.ts"

const limit = (property: string) =>
  Effect.timeoutOrElse({
    duration: "20 seconds",
    orElse: () => Effect.sync(() => assert.fail(`${property}, within 20 seconds`))
  })

const rounds = Array.from({ length: 20 }, (_, i) => i)

/** A server, a proxy in front of it, and a client behind that. */
const behindProxy = Effect.fnUntraced(function*(options: ZooKeeperLock.Options = {}) {
  const { bare, servers: [server = ""] } = yield* ZooKeeper
  const road = yield* roadTo(server)
  const client = yield* ZooKeeperLock.make({ sessionTimeout: "8 seconds", ...options, servers: [road.addr] })
  return { bare, client, road, server }
})

const listen = (accept: (socket: Net.Socket) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly addr: string, readonly close: () => void }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const listener = Net.createServer({ noDelay: true }, (socket) => {
        sockets.add(socket.on("error", () => {}))
        accept(socket)
      })
      listener.listen(0, "127.0.0.1", () => {
        const address = listener.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        const close = () => {
          for (const socket of sockets) socket.destroy()
          listener.close()
        }
        resume(Effect.succeed({ addr: `127.0.0.1:${port}`, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

layer(ZooKeeper.layer({}), { excludeTestServices: true, timeout: "1 minute" })("faults of the driver", (it) => {
  describe("a lost reply", () => {
    it.effect("to the create leaves one node, which holds the key", () =>
      Effect.gen(function*() {
        const { bare, client, road } = yield* behindProxy()
        for (const round of rounds) {
          const request = attempt(freshKey())
          yield* road.dropNextReply
          const grant = round % 2 === 0
            ? Option.some(yield* limit("the key is granted")(client.acquire(request)))
            : yield* limit("the key is granted")(client.tryAcquire(request))
          assert.isTrue(Option.isSome(grant), "a free key is granted, whatever becomes of a reply")
          assert.lengthOf(yield* lineOf(bare, request.key), 1, "no second node of the attempt")
          assert.isTrue(yield* client.release(request))
          assert.lengthOf(yield* lineOf(bare, request.key), 0)
        }
      }))

    it.effect("to the removal is asked for again, and the answer is that it was ours", () =>
      Effect.gen(function*() {
        const { bare, client, road } = yield* behindProxy()
        for (const _ of rounds) {
          const request = attempt(freshKey())
          yield* client.acquire(request)
          yield* road.dropNextReply
          assert.isTrue(yield* limit("the key is released")(client.release(request)))
          assert.lengthOf(yield* lineOf(bare, request.key), 0)
        }
      }))

    it.effect("while somebody waits loses neither the place nor the wake-up", () =>
      Effect.gen(function*() {
        const { bare, client, road, server } = yield* behindProxy()
        const other = yield* ZooKeeperLock.make({ servers: [server] })
        for (const round of rounds) {
          const holder = attempt(freshKey())
          const waiter = attempt(holder.key)
          yield* other.acquire(holder)
          const waiting = yield* Effect.forkScoped(client.acquire(waiter))
          if (round % 4 !== 0) yield* until(Effect.map(lineOf(bare, holder.key), (line) => line.length === 2))
          if (round % 4 === 1) yield* road.dropNextReply
          if (round % 4 === 2) yield* road.cut
          if (round % 4 === 3) yield* road.delay("20 millis")
          yield* other.release(holder)
          yield* limit("the waiter is served")(Fiber.join(waiting))
          yield* road.pass
          assert.lengthOf(yield* lineOf(bare, holder.key), 1)
          assert.isTrue(yield* client.release(waiter))
        }
      }))
  })

  it.effect("a create that reaches the server after its give-back leaves nothing", () =>
    Effect.gen(function*() {
      const { bare, client, road } = yield* behindProxy({ commandTimeout: "2 seconds" })
      for (const round of rounds.slice(0, 10)) {
        const request = attempt(freshKey())
        yield* road.blackhole("toServer")
        const asking = yield* Effect.forkScoped(round % 2 === 0 ? client.acquire(request) : client.tryAcquire(request))
        yield* Effect.sleep("20 millis")
        yield* limit("an interrupted attempt returns at once")(Fiber.interrupt(asking))
        const givenBack = yield* Effect.forkScoped(Effect.retry(client.release(request), { times: 20 }))
        yield* Effect.sleep("50 millis")
        yield* road.pass
        yield* limit("the give-back is answered")(Fiber.join(givenBack))
        assert.lengthOf(yield* lineOf(bare, request.key), 0, "nothing is left")
        yield* Effect.sleep("100 millis")
        assert.lengthOf(yield* lineOf(bare, request.key), 0, "nothing comes later")
      }
    }))

  it.effect("what was not sent when the connection ended is not sent on the next one", () =>
    Effect.gen(function*() {
      const { bare, client, road } = yield* behindProxy({ commandTimeout: "500 millis" })
      yield* road.refuse
      // This one finds out.
      const first = attempt(freshKey())
      yield* Effect.exit(client.acquire(first))
      const requests = rounds.map(() => attempt(freshKey()))
      const exits = yield* Effect.forEach(requests, (request) => Effect.exit(client.acquire(request)), {
        concurrency: "unbounded"
      })
      assert.isTrue(exits.every(Exit.isFailure), "without a connection nothing is granted")
      const released = yield* Effect.forEach(requests, client.release, { concurrency: "unbounded" })
      assert.isFalse(released.includes(true), "nothing is there to give back, and nobody needs to be asked")
      yield* road.pass
      const later = attempt(freshKey())
      yield* Effect.retry(client.acquire(later), { times: 5 })
      yield* client.release(first)
      for (const { key } of [first, ...requests]) assert.lengthOf(yield* lineOf(bare, key), 0)
      yield* client.release(later)
    }))

  it.effect(
    "what a stopped server has not read yet, and what was not sent for that reason, leaves nothing",
    () =>
      Effect.gen(function*() {
        const { bare, nodes: [node], servers } = yield* ZooKeeper
        const client = yield* ZooKeeperLock.make({ servers, prefix: "/stopped", sessionTimeout: "8 seconds" })
        // More than the buffers between the two can take.
        const requests = Array.from({ length: 8000 }, () => attempt(freshKey().padEnd(1000, "x")))
        yield* node?.pause ?? Effect.void
        const asking = yield* Effect.forEach(requests, (request) => Effect.forkScoped(client.acquire(request)))
        yield* Effect.sleep("500 millis")
        yield* limit("interrupted attempts return at once")(Fiber.interruptAll(asking))
        const givingBack = yield* Effect.forkScoped(
          Effect.forEach(requests, (request) => Effect.retry(client.release(request), { times: 20 }), {
            concurrency: "unbounded",
            discard: true
          })
        )
        yield* Effect.sleep("4 seconds")
        yield* node?.resume ?? Effect.void
        yield* limit("every give-back is answered")(Fiber.join(givingBack))
        const left = Effect.map(
          Effect.forEach(requests, ({ key }) => childrenOf(bare, `/stopped/${key}`), { concurrency: 500 }),
          (all) => all.flat().length
        )
        assert.strictEqual(yield* left, 0, "nothing is left")
        yield* Effect.sleep("500 millis")
        assert.strictEqual(yield* left, 0, "nothing comes later")
      }),
    { timeout: 60_000 }
  )

  it.effect("a frame that is cut in the middle does not spoil the next connection", () =>
    Effect.gen(function*() {
      const { bare, servers: [server = ""] } = yield* ZooKeeper
      const [host = "", port = ""] = server.split(":")
      let cutNext = false
      const road = yield* listen((near) => {
        const far = Net.connect({ host, port: Number(port), noDelay: true })
        near.on("data", (bytes) => far.write(bytes))
        far.on("data", (bytes) => {
          const whole = !cutNext
          cutNext = false
          near.write(whole ? bytes : bytes.subarray(0, 7), () => {
            if (!whole) near.destroy()
          })
        })
        far.on("error", () => {})
        near.on("close", () => far.destroy())
        far.on("close", () => near.destroy())
      })
      const client = yield* ZooKeeperLock.make({ servers: [road.addr], sessionTimeout: "8 seconds" })
      const holder = attempt(freshKey())
      yield* client.acquire(holder)
      for (const _ of rounds) {
        const request = attempt(freshKey())
        cutNext = true
        yield* limit("the key is granted")(client.acquire(request))
        assert.lengthOf(yield* lineOf(bare, request.key), 1)
        yield* client.release(request)
      }
      assert.deepStrictEqual(holder.losses, [], "the session goes on")
      assert.isTrue(yield* client.release(holder))
    }))

  it.effect("a server that takes the connection and never answers is passed over", () =>
    Effect.gen(function*() {
      const { server } = yield* behindProxy()
      const silent = yield* listen(() => {})
      for (const servers of [[silent.addr, server], [server, silent.addr]]) {
        const client = yield* ZooKeeperLock.make({ servers, sessionTimeout: "4 seconds" })
        const request = attempt(freshKey())
        yield* limit("the key is granted")(client.acquire(request))
        yield* client.release(request)
      }
    }))

  it.effect("a connection that falls silent is given up for another one, and nothing is lost", () =>
    Effect.gen(function*() {
      const { servers: [server = ""] } = yield* ZooKeeper
      const roads = yield* Effect.all([roadTo(server), roadTo(server)])
      const servers = roads.map(({ addr }) => addr)
      const client = yield* ZooKeeperLock.make({ servers, sessionTimeout: "6 seconds" })
      const holder = attempt(freshKey())
      yield* client.acquire(holder)
      for (const _ of rounds.slice(0, 3)) {
        const open = yield* Effect.forEach(roads, ({ connections }) => connections)
        const used = roads[open.findIndex((count) => count > 0)] ?? assert.fail("it is connected")
        yield* used.blackhole()
        const request = attempt(freshKey())
        yield* limit("the key is granted")(client.acquire(request))
        assert.isTrue(Option.isSome(yield* client.renew(holder)))
        assert.isTrue(yield* client.release(request))
        yield* used.cut
        yield* used.pass
      }
      assert.deepStrictEqual(holder.losses, [])
      assert.isTrue(yield* client.release(holder))
    }))

  it.effect("a connection that is made anew while its server is silent is given up, too", () =>
    Effect.gen(function*() {
      const { client, road } = yield* behindProxy({ sessionTimeout: "6 seconds" })
      const holder = attempt(freshKey())
      yield* client.acquire(holder)
      yield* road.blackhole("toClient")
      yield* road.cut
      yield* Effect.sleep("2 seconds")
      yield* road.pass
      assert.isTrue(Option.isSome(yield* limit("the session is confirmed")(client.renew(holder))))
      assert.deepStrictEqual(holder.losses, [])
      assert.isTrue(yield* client.release(holder))
    }))

  it.effect(
    "4,000 waiters with long keys, whose watches fill more than a packet, survive a new connection",
    () =>
      Effect.gen(function*() {
        const patient = { prefix: "/watched", commandTimeout: "30 seconds" } as const
        const { bare, client, road, server } = yield* behindProxy({ ...patient, sessionTimeout: "30 seconds" })
        const other = yield* ZooKeeperLock.make({ ...patient, servers: [server] })
        const holders = Array.from({ length: 4000 }, () => attempt(freshKey().padEnd(300, "x")))
        yield* Effect.forEach(holders, other.acquire, { concurrency: 500, discard: true })
        const waiters = holders.map(({ key }) => attempt(key))
        const waiting = yield* Effect.forEach(waiters, (waiter) => Effect.forkScoped(client.acquire(waiter)))
        const inLine = Effect.forEach(
          holders,
          ({ key }) => Effect.map(childrenOf(bare, `/watched/${key}`), (names) => names.length),
          { concurrency: 500 }
        )
        yield* until(Effect.map(inLine, (all) => all.every((length) => length === 2)))
        yield* Effect.sleep("500 millis")
        yield* road.cut
        yield* Effect.sleep("1 second")
        yield* Effect.forEach(holders, other.release, { concurrency: 500, discard: true })
        yield* limit("everybody is served")(Fiber.joinAll(waiting))
        const released = yield* Effect.forEach(waiters, client.release, { concurrency: 500 })
        assert.isTrue(released.every((was) => was))
        assert.isBelow(yield* road.connections, 2, "there is one connection")
      }),
    { timeout: 60_000 }
  )

  it.effect("closing ends the session at once, and does no harm while there is no connection", () =>
    Effect.gen(function*() {
      const { bare, servers: [server = ""] } = yield* ZooKeeper
      const road = yield* roadTo(server)
      const open = Effect.gen(function*() {
        const scope = yield* Scope.make()
        const client = yield* Scope.provide(
          ZooKeeperLock.make({ servers: [road.addr], sessionTimeout: "4 seconds" }),
          scope
        )
        const request = attempt(freshKey())
        yield* client.acquire(request)
        return { request, close: limit("closing takes little")(Scope.close(scope, Exit.void)) }
      })
      const first = yield* open
      yield* first.close
      assert.lengthOf(yield* lineOf(bare, first.request.key), 0, "the server is told")
      const second = yield* open
      yield* Effect.andThen(road.refuse, Effect.sleep("300 millis"))
      yield* second.close
      const third = yield* Effect.andThen(road.pass, open)
      yield* road.blackhole()
      yield* third.close
      yield* road.pass
      yield* Effect.sleep("500 millis")
      assert.strictEqual(yield* road.connections, 0, "no connection is left or made again")
    }))
})
