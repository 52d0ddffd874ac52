/**
 * Three members: what becomes of locks when one of them fails, or two.
 */
import { EtcdLock } from "@dlock/etcd"
import { assert, layer } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Option } from "effect"
import type { Scope } from "effect"
import { etcdCluster } from "../harness/EtcdServer.ts"
import type { Server } from "../harness/Server.ts"
import { freshKey, millis, newRequest, until } from "../requests.ts"
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

/** Kills a member, which is started again at the end at the latest, for the tests that come after. */
const killed = (node: Server) => Effect.acquireRelease(node.kill, () => Effect.orDie(node.start))

/** Freezes a member, until the end at the latest. */
const paused = (node: Server) => Effect.acquireRelease(node.pause, () => node.resume)

/** The election of a leader takes seconds on a busy machine. */
const commandTimeout = "15 seconds"

// One after the other: each of them hurts the cluster that all share.
layer(Cluster.layer, { excludeTestServices: true, timeout: "2 minutes" })("etcd cluster", (it) => {
  it.effect("the leader is killed: holders keep their keys, waiters their places", () =>
    Effect.gen(function*() {
      const { endpoints, nodes } = yield* Cluster
      const bare = yield* connect(endpoints)
      const [a, b] = [
        yield* EtcdLock.make({ endpoints, commandTimeout }),
        yield* EtcdLock.make({ endpoints, commandTimeout })
      ]
      const key = freshKey()
      const holder = newRequest(key, "1 minute")
      const waiters = [newRequest(key, "1 minute"), newRequest(key, "1 minute"), newRequest(key, "1 minute")]
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
      yield* killed(leader)
      const grant = yield* a.tryAcquire(newRequest(freshKey()))
      assert.isTrue(Option.isSome(grant), "a request rides out the election")
      yield* Effect.sleep("3 seconds")
      assert.deepStrictEqual(holder.losses, [], "an election is not a loss")
      assert.deepStrictEqual(served, [], "an election lets no other owner in")
      assert.isTrue(Option.isNone(yield* b.tryAcquire(newRequest(key))))
      assert.strictEqual(yield* a.release(holder), "released")
      yield* Fiber.joinAll(waiting).pipe(Effect.timeout("1 minute"))
      assert.deepStrictEqual(served, [0, 1, 2], "the line is as it was")
    }))

  it.effect("the leader is killed as the lock is released: the waiter gets its turn", () =>
    Effect.gen(function*() {
      const { endpoints, nodes } = yield* Cluster
      const bare = yield* connect(endpoints)
      const [a, b] = [
        yield* EtcdLock.make({ endpoints, commandTimeout }),
        yield* EtcdLock.make({ endpoints, commandTimeout })
      ]
      const key = freshKey()
      const [holder, waiter] = [newRequest(key), newRequest(key)]
      yield* a.tryAcquire(holder)
      const waiting = yield* Effect.forkScoped(b.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, key), (line) => line.length === 2))
      const leader = yield* leaderOf(nodes)
      const [released] = yield* Effect.all([a.release(holder), killed(leader)], { concurrency: 2 })
      assert.include(["released", "unknown"], released)
      yield* Fiber.join(waiting).pipe(Effect.timeout("1 minute"))
      assert.strictEqual(yield* b.release(waiter), "released")
    }))

  it.effect("each member in turn is stopped and started: a lock is held all along", () =>
    Effect.gen(function*() {
      const { endpoints, nodes } = yield* Cluster
      const backend = yield* EtcdLock.make({ endpoints, commandTimeout })
      const holder = newRequest(freshKey(), "1 minute")
      const grant = yield* backend.tryAcquire(holder)
      for (const node of nodes) {
        yield* killed(node)
        assert.isTrue(Option.isSome(yield* backend.renew(holder, { fresh: true })), "it is renewed without that member")
        const other = newRequest(freshKey())
        assert.isTrue(Option.isSome(yield* backend.tryAcquire(other)))
        assert.strictEqual(yield* backend.release(other), "released")
        yield* node.start
      }
      assert.deepStrictEqual(holder.losses, [])
      assert.strictEqual(yield* backend.release(holder), "released")
      const next = yield* backend.tryAcquire(newRequest(holder.key))
      assert.isTrue(
        Option.getOrThrow(next).tokens.first > Option.getOrThrow(grant).tokens.first,
        "tokens grow over changes of the leader"
      )
    }))

  it.effect("without a majority: a clear error within the command timeout, a loss in time, and all well afterwards", () =>
    Effect.gen(function*() {
      const { endpoints, nodes } = yield* Cluster
      const [only, ...others] = nodes
      const backend = yield* EtcdLock.make({ endpoints: [only?.addr ?? ""], commandTimeout: "2 seconds" })
      const anywhere = yield* EtcdLock.make({ endpoints, commandTimeout: "2 seconds" })
      const holder = newRequest(freshKey(), "4 seconds")
      yield* backend.tryAcquire(holder)
      yield* Effect.forEach(others, paused)
      yield* Effect.sleep("1500 millis")
      for (const each of [backend, anywhere]) {
        const [error, took] = yield* millis(Effect.flip(each.tryAcquire(newRequest(freshKey()))))
        assert.strictEqual(error._tag, "LockBackendError")
        assert.include(["Unreachable", "Timeout"], error.reason)
        assert.isBelow(took, 10_000, "it is told in about the command timeout")
      }
      yield* Deferred.await(holder.lost).pipe(Effect.timeout("1 minute"))
      assert.deepStrictEqual(holder.losses, ["expired"])
      yield* Effect.forEach(others, (node) => node.resume)
      for (const each of [backend, anywhere]) {
        const request = newRequest(freshKey())
        const again = Effect.retry(each.tryAcquire(request), { times: 30 })
        assert.isTrue(Option.isSome(yield* again.pipe(Effect.timeout("1 minute"))), "it comes back by itself")
      }
      yield* until(
        Effect.map(anywhere.tryAcquire(newRequest(holder.key)), Option.isSome)
      ).pipe(Effect.timeout("1 minute"))
    }))

  it.effect("an unreachable endpoint does no harm beside one that answers", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* Cluster
      for (let i = 0; i < 4; i++) {
        const backend = yield* EtcdLock.make({
          endpoints: ["127.0.0.1:1", ...endpoints],
          commandTimeout,
          dialTimeout: commandTimeout
        })
        const request = newRequest(freshKey())
        assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)))
        assert.strictEqual(yield* backend.release(request), "released")
      }
    }))
})
