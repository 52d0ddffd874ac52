/**
 * Three members: what becomes of locks when one of them fails, or two.
 */
import { EtcdLock } from "@dlock/etcd"
import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Option } from "effect"
import type { Scope } from "effect"
import { etcdCluster } from "../harness/EtcdServer.ts"
import type { Server } from "../harness/Server.ts"
import { attempt, freshKey, millis, until } from "../requests.ts"
import { connect, lineOf } from "./support.ts"

class Cluster extends Context.Service<Cluster, {
  readonly nodes: ReadonlyArray<Server>
  readonly endpoints: ReadonlyArray<string>
}>()("test/etcd/Cluster") {
  static readonly layer = Layer.effect(Cluster, etcdCluster())
}

const isLeader = (node: Server): Effect.Effect<boolean, never, Scope.Scope> =>
  Effect.flatMap(connect([node.addr]), (bare) =>
    Effect.promise(async () => {
      const { header, leader } = await bare.maintenance.status()
      return header.member_id === leader
    }))

const leaderOf = (nodes: ReadonlyArray<Server>): Effect.Effect<Server> =>
  Effect.flatMap(
    Effect.filter(nodes, (node) => Effect.scoped(isLeader(node))),
    // In the middle of an election there is none.
    ([leader]) => leader === undefined ? Effect.delay(leaderOf(nodes), "100 millis") : Effect.succeed(leader)
  )

// One after the other: each of them hurts the cluster that all share.
layer(Cluster.layer, { excludeTestServices: true, timeout: "2 minutes" })("etcd cluster", (it) => {
  it.effect("the leader is killed: holders keep their keys, waiters their places", () =>
    Effect.gen(function*() {
      const { endpoints, nodes } = yield* Cluster
      const bare = yield* connect(endpoints)
      const [a, b] = [yield* EtcdLock.make({ endpoints }), yield* EtcdLock.make({ endpoints })]
      const key = freshKey()
      const holder = attempt(key, "10 seconds")
      const waiters = [attempt(key, "10 seconds"), attempt(key, "10 seconds"), attempt(key, "10 seconds")]
      yield* a.tryAcquire(holder)
      const served: Array<number> = []
      const waiting = yield* Effect.forEach(waiters, (waiter, i) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.forkScoped(Effect.gen(function*() {
            yield* (i % 2 === 0 ? a : b).acquire(waiter)
            served.push(i)
            yield* (i % 2 === 0 ? a : b).release(waiter)
          }))
          yield* until(Effect.map(lineOf(bare, key), (line) => line.length === i + 2))
          return fiber
        }))
      const leader = yield* leaderOf(nodes)
      yield* leader.kill
      const [grant, took] = yield* millis(a.tryAcquire(attempt(freshKey())))
      assert.isTrue(Option.isSome(grant), "a request rides out the election")
      assert.isBelow(took, 5000)
      yield* Effect.sleep("3 seconds")
      assert.deepStrictEqual(holder.losses, [], "an election is not a loss")
      assert.deepStrictEqual(served, [], "nobody is let in by an election")
      assert.isTrue(Option.isNone(yield* b.tryAcquire(attempt(key))))
      assert.isTrue(yield* a.release(holder))
      yield* Fiber.joinAll(waiting).pipe(Effect.timeout("10 seconds"))
      assert.deepStrictEqual(served, [0, 1, 2], "the line is as it was")
      yield* leader.start
    }))

  it.effect("the leader is killed as the lock is released: the waiter gets its turn", () =>
    Effect.gen(function*() {
      const { endpoints, nodes } = yield* Cluster
      const bare = yield* connect(endpoints)
      const [a, b] = [yield* EtcdLock.make({ endpoints }), yield* EtcdLock.make({ endpoints })]
      const key = freshKey()
      const [holder, waiter] = [attempt(key), attempt(key)]
      yield* a.tryAcquire(holder)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, key), (line) => line.length === 2))
      const leader = yield* leaderOf(nodes)
      const [released] = yield* Effect.all([a.release(holder), leader.kill], { concurrency: 2 })
      assert.isTrue(released)
      yield* Fiber.join(waiting).pipe(Effect.timeout("10 seconds"))
      assert.isTrue(yield* b.release(waiter))
      yield* leader.start
    }))

  it.effect("each member in turn is stopped and started: a lock is held all along", () =>
    Effect.gen(function*() {
      const { endpoints, nodes } = yield* Cluster
      const backend = yield* EtcdLock.make({ endpoints })
      const holder = attempt(freshKey(), "10 seconds")
      const grant = yield* backend.tryAcquire(holder)
      for (const node of nodes) {
        yield* node.kill
        yield* Effect.sleep("2 seconds")
        assert.isTrue(Option.isSome(yield* backend.renew(holder)), "it is renewed without that member")
        const other = attempt(freshKey())
        assert.isTrue(Option.isSome(yield* backend.tryAcquire(other)))
        assert.isTrue(yield* backend.release(other))
        yield* node.start
        yield* Effect.sleep("500 millis")
      }
      assert.deepStrictEqual(holder.losses, [])
      assert.isTrue(yield* backend.release(holder))
      const next = yield* backend.tryAcquire(attempt(holder.key))
      assert.isTrue(
        Option.getOrThrow(next).fencingToken > Option.getOrThrow(grant).fencingToken,
        "tokens grow over changes of the leader"
      )
    }))

  it.effect("without a majority: a clear error within the command timeout, a loss in time, and all well afterwards", () =>
    Effect.gen(function*() {
      const { endpoints, nodes } = yield* Cluster
      const [only, ...others] = nodes
      const backend = yield* EtcdLock.make({ endpoints: [only?.addr ?? ""], commandTimeout: "2 seconds" })
      const anywhere = yield* EtcdLock.make({ endpoints, commandTimeout: "2 seconds" })
      const holder = attempt(freshKey(), "4 seconds")
      yield* backend.tryAcquire(holder)
      yield* Effect.forEach(others, (node) => node.pause)
      yield* Effect.sleep("1500 millis")
      for (const each of [backend, anywhere]) {
        const [error, took] = yield* millis(Effect.flip(each.tryAcquire(attempt(freshKey()))))
        assert.strictEqual(error._tag, "LockBackendError")
        assert.include(["Unreachable", "Timeout"], error.reason)
        assert.isBelow(took, 4000, "it is told within the command timeout")
      }
      yield* Deferred.await(holder.lost).pipe(Effect.timeout("10 seconds"))
      assert.deepStrictEqual(holder.losses, ["expired"])
      yield* Effect.forEach(others, (node) => node.resume)
      for (const each of [backend, anywhere]) {
        const request = attempt(freshKey())
        const again = Effect.retry(each.tryAcquire(request), { times: 5 })
        assert.isTrue(Option.isSome(yield* again.pipe(Effect.timeout("15 seconds"))), "it comes back by itself")
      }
      yield* until(
        Effect.map(anywhere.tryAcquire(attempt(holder.key)), Option.isSome)
      ).pipe(Effect.timeout("10 seconds"))
    }))

  it.effect("an endpoint where nobody is does no harm beside one that answers", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* Cluster
      for (let i = 0; i < 4; i++) {
        const backend = yield* EtcdLock.make({ endpoints: ["127.0.0.1:1", ...endpoints] })
        const request = attempt(freshKey())
        assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)))
        assert.isTrue(yield* backend.release(request))
      }
    }))
})
