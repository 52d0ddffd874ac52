import { ZooKeeperLock } from "@dlock/zookeeper"
import { assert, layer } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option } from "effect"
import { freshKey, newRequest, until } from "../requests.ts"
import { create, dataOf, directoryOf, limit, lineOf, packetsReceived, remove, roadTo, ZooKeeper } from "./support.ts"

layer(ZooKeeper.layer({}), { excludeTestServices: true, timeout: "1 minute" })("a held node", (it) => {
  it.effect("that is removed by hand is a loss that the holder is told", () =>
    Effect.gen(function*() {
      const { bare, servers } = yield* ZooKeeper
      const client = yield* ZooKeeperLock.make({ servers })
      for (const pause of [0, 200]) {
        const request = newRequest(freshKey())
        yield* client.acquire(request)
        yield* Effect.sleep(pause)
        const [node = ""] = yield* lineOf(bare, request.key)
        yield* remove(bare, `${directoryOf(request.key)}/${node}`)
        yield* limit("the loss is told")(Deferred.await(request.lost))
        assert.deepStrictEqual(request.losses, ["taken"])
        assert.isTrue(Option.isNone(yield* client.renew(request, {})), "it is not renewed")
        assert.isTrue(Option.isNone(yield* client.renew(request, { spare: 1 })), "it gets no tokens")
        assert.strictEqual(yield* client.release(request), "gone")
      }
      const brief = newRequest(freshKey())
      yield* client.acquire(brief)
      const [node = ""] = yield* lineOf(bare, brief.key)
      yield* remove(bare, `${directoryOf(brief.key)}/${node}`)
      assert.strictEqual(yield* client.release(brief), "gone", "the release tells it, too")
    }))

  it.effect("is still watched after a new connection", () =>
    Effect.gen(function*() {
      const { bare, servers: [server = ""] } = yield* ZooKeeper
      const road = yield* roadTo(server)
      const client = yield* ZooKeeperLock.make({ servers: [road.addr], sessionTimeout: "10 seconds" })
      const request = newRequest(freshKey())
      yield* client.acquire(request)
      yield* Effect.sleep("100 millis")
      yield* road.cut
      yield* client.renew(request, { fresh: true })
      yield* Effect.sleep("200 millis")
      const [node = ""] = yield* lineOf(bare, request.key)
      yield* remove(bare, `${directoryOf(request.key)}/${node}`)
      yield* limit("the loss is told")(Deferred.await(request.lost))
      assert.deepStrictEqual(request.losses, ["taken"])
      yield* client.release(request)
    }))

  it.effect("tells its holder that another process waits, and costs nothing while it is held briefly", () =>
    Effect.gen(function*() {
      const { nodes: [node], bare, servers } = yield* ZooKeeper
      const a = yield* ZooKeeperLock.make({ servers })
      const b = yield* ZooKeeperLock.make({ servers })
      const port = node?.port ?? 0
      const key = freshKey()
      const once = Effect.suspend(() => {
        const request = newRequest(key)
        return Effect.andThen(a.acquire(request), a.release(request))
      })
      yield* once
      const before = yield* packetsReceived(port)
      for (let i = 0; i < 50; i++) yield* once
      assert.isBelow((yield* packetsReceived(port)) - before, 155, "three requests for each")

      const [holder, waiter] = [newRequest(key), newRequest(key)]
      yield* a.acquire(holder)
      yield* Effect.sleep("300 millis")
      for (let i = 0; i < 3; i++) yield* a.renew(holder, { spare: 1 })
      yield* Effect.sleep("100 millis")
      assert.isFalse(yield* Deferred.isDone(holder.wanted), "no process waits")
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* limit("the holder is told")(Deferred.await(holder.wanted))
      assert.deepStrictEqual(holder.losses, [])
      const owners = yield* Effect.forEach(
        yield* lineOf(bare, key),
        (name) => Effect.map(dataOf(bare, `${directoryOf(key)}/${name}`), String)
      )
      assert.sameMembers(owners, [holder.owner, waiter.owner], "the nodes still say whose they are")
      yield* a.release(holder)
      yield* limit("the waiter is served")(Fiber.join(waiting))
      assert.isFalse(yield* Deferred.isDone(waiter.wanted), "no process waits any more")
      yield* b.release(waiter)
    }))

  it.effect("and those behind it are told by their owners, and those of other programs by their names", () =>
    Effect.gen(function*() {
      const { bare, servers } = yield* ZooKeeper
      const [a, b] = [yield* ZooKeeperLock.make({ servers }), yield* ZooKeeperLock.make({ servers })]
      const key = freshKey()
      assert.deepStrictEqual(yield* a.inspect(key), { holder: Option.none(), waiting: [] })
      const requests = Array.from({ length: 4 }, () => newRequest(key))
      for (const [i, request] of requests.entries()) {
        yield* Effect.forkScoped((i % 2 === 0 ? a : b).acquire(request))
        yield* until(Effect.map(lineOf(bare, key), (line) => line.length === i + 1))
      }
      const foreign = yield* create(bare, `${directoryOf(key)}/lock-`, 3)
      const [first, ...others] = requests.map(({ owner }) => owner)
      const { holder, waiting } = yield* b.inspect(key)
      assert.strictEqual(Option.getOrThrow(holder).owner, first)
      assert.deepStrictEqual(waiting, [...others, foreign.slice(foreign.lastIndexOf("/") + 1)])
      yield* remove(bare, foreign)
      yield* Effect.forEach(requests, (request, i) => (i % 2 === 0 ? a : b).release(request))
    }))
})
