/**
 * The faults of the driver (etcd3 1.1.2), each as a user of this backend would meet it if it were not worked around.
 */
import { type LockBackendError, withLock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { assert, layer } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Option, Scope } from "effect"
import { etcd } from "../harness/EtcdServer.ts"
import { freshKey, millis, newRequest, until } from "../requests.ts"
import { freezer, turnout } from "./roads.ts"
import { clear, connect, escaped, Etcd, keysOf, leasesOf, lineOf, revoke, roadTo } from "./support.ts"

/** Where nothing falls silent, a request may take as long as a busy machine needs. */
const commandTimeout = "30 seconds"

const roadToServer = Effect.flatMap(Etcd, ({ endpoints }) => roadTo(endpoints[0] ?? ""))

/** Holder and waiter; answers the waiter's fiber when it stands in line. */
const lineUp = Effect.fnUntraced(function*(backend: EtcdBackend, key: string) {
  const { bare } = yield* Etcd
  const before = (yield* lineOf(bare, key)).length
  const waiter = newRequest(key)
  const waiting = yield* Effect.forkScoped(backend.acquire(waiter))
  yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === before + 1))
  // Its watch stands a moment later.
  yield* Effect.sleep("100 millis")
  return { waiter, waiting }
})

type EtcdBackend = Effect.Success<ReturnType<typeof EtcdLock.make>>

layer(Etcd.layer(), { excludeTestServices: true, concurrent: true })("etcd3", (it) => {
  it.effect("2: a connection that other clients of the process share and that fell silent is left", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const road = yield* freezer(endpoints[0] ?? "")
      const [a, b] = [
        yield* EtcdLock.make({ endpoints: [road.addr], commandTimeout: "8 seconds" }),
        yield* EtcdLock.make({ endpoints: [road.addr], commandTimeout: "8 seconds" })
      ]
      for (const backend of [a, b]) yield* backend.tryAcquire(newRequest(freshKey()))
      yield* road.freeze
      for (const backend of [a, b, a, b]) {
        const request = newRequest(freshKey())
        assert.isTrue(Option.isSome(yield* backend.tryAcquire(request)), "the second try is on a new connection")
      }
    }))

  it.effect("2, 4: a connection that fell silent is left, by calls, keepalives and watches alike", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const roads = [yield* roadToServer, yield* roadToServer]
      const direct = yield* EtcdLock.make({ endpoints })
      const backend = yield* EtcdLock.make({ endpoints: roads.map(({ addr }) => addr) })
      const kept = newRequest(freshKey(), "12 seconds")
      yield* backend.tryAcquire(kept)
      // One of the two is in use, whichever it is.
      for (const road of roads) {
        const key = freshKey()
        const holder = newRequest(key)
        yield* direct.tryAcquire(holder)
        const { waiter, waiting } = yield* lineUp(backend, key)
        yield* road.blackhole()
        yield* Effect.sleep("200 millis")
        yield* direct.release(holder)
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* backend.release(waiter), "released")
        const grant = yield* backend.tryAcquire(newRequest(freshKey()))
        assert.isTrue(Option.isSome(grant), "calls go over another connection")
        yield* Effect.sleep("13 seconds")
        assert.deepStrictEqual(kept.losses, [], "keepalives go over another connection, in time")
        yield* road.pass
      }
      assert.strictEqual(yield* backend.release(kept), "released")
    }))

  it.effect("3: the circuit breaker: half a second of outage costs no lock and no five seconds of refusal", () =>
    Effect.gen(function*() {
      const server = yield* etcd({})
      const backend = yield* EtcdLock.make({ endpoints: [server.addr] })
      const held = newRequest(freshKey(), "10 seconds")
      yield* backend.tryAcquire(held)
      yield* server.kill
      const during = yield* Effect.forkScoped(backend.tryAcquire(newRequest(freshKey())))
      yield* Effect.sleep("500 millis")
      yield* server.start
      const [grant, took] = yield* millis(backend.tryAcquire(newRequest(freshKey())))
      assert.isTrue(Option.isSome(grant))
      assert.isBelow(took, 4500, "requests pass before the driver would let them")
      assert.isTrue(Option.isSome(yield* Fiber.join(during)), "a request made during the outage rides it out")
      yield* Effect.sleep("11 seconds")
      assert.deepStrictEqual(held.losses, [], "keepalives pass as well")
      assert.isTrue(Option.isSome(yield* backend.renew(held, {})))
      assert.strictEqual(yield* backend.release(held), "released")
    }))

  it.effect("4: a call that runs out of time closes the watch's channel: the waiter still gets its turn", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const road = yield* roadToServer
      const key = freshKey()
      const direct = yield* EtcdLock.make({ endpoints })
      const backend = yield* EtcdLock.make({ endpoints: [road.addr], commandTimeout: "10 seconds" })
      const holder = newRequest(key)
      yield* direct.tryAcquire(holder)
      const { waiter, waiting } = yield* lineUp(backend, key)
      yield* road.blackhole("toServer")
      // It has no more time than its ttl, and the waiter is left the rest of the command timeout.
      yield* Effect.flip(backend.tryAcquire(newRequest(freshKey(), 2000)))
      yield* road.pass
      yield* direct.release(holder)
      yield* Fiber.join(waiting)
      yield* backend.release(waiter)
    }))

  it.effect("5: unary calls are sent again blindly: a lost reply is no refusal, and nothing is left behind", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const road = yield* turnout(endpoints[0] ?? "")
      const backend = yield* EtcdLock.make({ endpoints: [road.addr], commandTimeout })
      for (const verb of ["tryAcquire", "acquire"] as const) {
        const request = newRequest(freshKey())
        const { lost } = road
        yield* road.loseReplyTo(escaped(request.owner))
        const grant = verb === "acquire"
          ? Option.some(yield* backend.acquire(request))
          : yield* backend.tryAcquire(request)
        assert.strictEqual(road.lost, lost + 1, "the reply was lost")
        assert.isTrue(Option.isSome(grant), `${verb}: the key that the lost reply granted is ours`)
        assert.strictEqual((yield* lineOf(bare, request.key)).length, 1, "one place for one attempt")
        // Nothing but the release names the owner: a watch of a held lock is on the line.
        yield* road.loseReplyTo(escaped(request.owner))
        assert.strictEqual(yield* backend.release(request), "unknown", "a copy of the release removed the key")
        assert.strictEqual(road.lost, lost + 2, "the reply was lost")
        assert.deepStrictEqual(yield* lineOf(bare, request.key), [], "nothing is left")
      }
    }))

  it.effect("6: an attempt that failed or was sent twice leaves nothing, however late a copy of it arrives", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      for (const verb of ["tryAcquire", "acquire"] as const) {
        for (const fate of ["granted", "failed", "interrupted"] as const) {
          const road = yield* freezer(endpoints[0] ?? "")
          const backend = yield* EtcdLock.make({ endpoints: [road.addr], commandTimeout: "3 seconds" })
          // A session that many share: it lives on.
          const other = newRequest(freshKey())
          yield* backend.tryAcquire(other)
          const request = newRequest(freshKey())
          yield* road.freeze
          // Then the second try freezes too, over a new connection.
          road.freezesNew = fate === "failed"
          const asking: Effect.Effect<unknown, LockBackendError> = backend[verb](request)
          const fiber = yield* Effect.forkScoped(asking, { startImmediately: true })
          yield* Effect.sleep("100 millis")
          if (fate === "granted") yield* Fiber.join(fiber)
          else if (fate === "interrupted") yield* Fiber.interrupt(fiber)
          else assert.isTrue(Exit.isFailure(yield* Fiber.await(fiber)), "a server that does not answer is a failure")
          road.freezesNew = false
          yield* Effect.retry(backend.release(request), { times: 5 })
          assert.deepStrictEqual(yield* lineOf(bare, request.key), [], "what was released is gone")
          yield* road.thaw
          yield* Effect.sleep("400 millis")
          assert.deepStrictEqual(
            yield* lineOf(bare, request.key),
            [],
            `${verb}, ${fate}: a copy that arrives after the release holds nothing and is not in line`
          )
          assert.deepStrictEqual(other.losses, [], "the session lives on")
          yield* backend.release(other)
        }
      }
    }))

  it.effect("6: an attempt that was interrupted on a healthy connection leaves no mark either", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const backend = yield* EtcdLock.make({ endpoints })
      const [key, other] = [freshKey(), newRequest(freshKey())]
      yield* backend.tryAcquire(other)
      for (let pause = 0; pause < 8; pause++) {
        const request = newRequest(key)
        const fiber = yield* Effect.forkScoped(backend.acquire(request), { startImmediately: true })
        if (pause > 0) yield* Effect.sleep(pause / 4)
        yield* Fiber.interrupt(fiber)
        yield* backend.release(request)
      }
      assert.deepStrictEqual(yield* keysOf(bare, key), [], "the answer is waited for, and tells that all is known")
      yield* backend.release(other)
    }))

  it.effect("6: a refusal that came over another connection than a copy of the question: the copy takes nothing", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const road = yield* freezer(endpoints[0] ?? "")
      const direct = yield* EtcdLock.make({ endpoints })
      const backend = yield* EtcdLock.make({ endpoints: [road.addr], commandTimeout: "3 seconds" })
      const [other, holder] = [newRequest(freshKey()), newRequest(freshKey())]
      yield* backend.tryAcquire(other)
      yield* direct.tryAcquire(holder)
      yield* road.freeze
      const refused = yield* backend.tryAcquire(newRequest(holder.key))
      assert.isTrue(Option.isNone(refused))
      yield* direct.release(holder)
      yield* road.thaw
      yield* Effect.sleep("300 millis")
      assert.deepStrictEqual(yield* lineOf(bare, holder.key), [], "what was refused is not released, and holds nothing")
      yield* backend.release(other)
    }))

  it.effect("9: a lease that is revoked elsewhere is noticed at once, not at the next keepalive", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const backend = yield* EtcdLock.make({ endpoints })
      const request = newRequest(freshKey(), "1 minute")
      yield* backend.tryAcquire(request)
      yield* Effect.sleep("800 millis")
      const [lease] = yield* leasesOf(bare, request.key)
      yield* revoke(bare, lease)
      const [, took] = yield* millis(Deferred.await(request.lost))
      assert.isBelow(took, 10_000, "a keepalive is sent every twenty seconds")
    }))

  it.effect("10: a client that closes leaves its leases: the layer revokes its sessions", () =>
    Effect.gen(function*() {
      const { bare, endpoints } = yield* Etcd
      const key = freshKey()
      const scope = yield* Scope.make()
      const backend = yield* Scope.provide(EtcdLock.make({ endpoints }), scope)
      yield* backend.tryAcquire(newRequest(key))
      assert.strictEqual((yield* lineOf(bare, key)).length, 1)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* lineOf(bare, key), [], "the key went with the session")
    }))

  it.effect("11: a compaction kills watches, and the process: holders and waiters go on", () =>
    Effect.gen(function*() {
      const server = yield* etcd({})
      const bare = yield* connect([server.addr])
      const road = yield* roadTo(server.addr)
      const backend = yield* EtcdLock.make({ endpoints: [road.addr], commandTimeout })
      const key = freshKey()
      const holder = newRequest(key)
      const waiter = newRequest(key)
      yield* backend.tryAcquire(holder)
      const waiting = yield* Effect.forkScoped(backend.acquire(waiter))
      yield* until(Effect.map(lineOf(bare, key), (keys) => keys.length === 2))
      const compact = Effect.promise(async () => {
        const { header } = await bare.put("elsewhere").value("x")
        await bare.kv.compact({ revision: header.revision, physical: true })
      })
      // Before the keys are watched, while they are, and while the watches are down.
      yield* compact
      yield* Effect.sleep("800 millis")
      yield* compact
      yield* road.cut
      yield* compact
      yield* Effect.sleep("800 millis")
      assert.deepStrictEqual([...holder.losses, ...waiter.losses], [], "a compaction is not a loss")
      assert.strictEqual(yield* backend.release(holder), "released")
      yield* Fiber.join(waiting).pipe(Effect.timeout("20 seconds"))
      yield* Effect.sleep("800 millis")
      yield* clear(bare, key)
      yield* Deferred.await(waiter.lost).pipe(Effect.timeout("20 seconds"))
    }))

  it.effect("12: the watch manager loses events over two cuts: the waiter does not", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const road = yield* roadToServer
      const direct = yield* EtcdLock.make({ endpoints })
      const backend = yield* EtcdLock.make({ endpoints: [road.addr] })
      for (const pause of [0, 1, 5, 20, 60]) {
        const key = freshKey()
        const holder = newRequest(key)
        yield* direct.tryAcquire(holder)
        const { waiter, waiting } = yield* lineUp(backend, key)
        yield* road.cut
        yield* Effect.sleep(pause)
        yield* direct.release(holder)
        yield* Effect.sleep(pause)
        yield* road.cut
        const [, took] = yield* millis(Fiber.join(waiting))
        assert.isBelow(took, 10_000, `released between two cuts, ${pause} ms apart`)
        yield* backend.release(waiter)
      }
    }))

  it.effect("13: leases are whole seconds: what is below is refused, what is above is rounded up and told", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* Etcd
      const backend = yield* EtcdLock.make({ endpoints, commandTimeout })
      const refused = yield* Effect.flip(withLock(freshKey(), Effect.void, { ttl: "900 millis" })).pipe(
        Effect.provide(EtcdLock.layer({ endpoints }))
      )
      assert.strictEqual(refused._tag, "InvalidLockRequest")
      const given = Effect.fnUntraced(function*(ttl: `${number} millis`) {
        const request = newRequest(freshKey(), ttl)
        const grant = Option.getOrThrow(yield* backend.tryAcquire(request))
        yield* backend.release(request)
        return Duration.toSeconds(grant.ttl)
      })
      assert.strictEqual(yield* given("1000 millis"), 2, "etcd's own minimum, with its default election timeout")
      assert.strictEqual(yield* given("2000 millis"), 2)
      assert.strictEqual(yield* given("2500 millis"), 3)
      assert.strictEqual(yield* given("29000 millis"), 30, "few distinct ttls, so that there are few sessions")
    }))

  it.effect("sessions are shared: fifty locks of one ttl live on one lease, which goes when it is not used", () =>
    Effect.gen(function*() {
      const server = yield* etcd({})
      const bare = yield* connect([server.addr])
      const backend = yield* EtcdLock.make({ endpoints: [server.addr] })
      const requests = Array.from({ length: 50 }, () => newRequest(freshKey(), "2 seconds"))
      yield* Effect.forEach(requests, backend.tryAcquire, { concurrency: "unbounded" })
      const leases = Effect.promise(async () => (await bare.leaseClient.leaseLeases()).leases.length)
      assert.strictEqual(yield* leases, 1, "one lease for one ttl")
      yield* Effect.forEach(requests, backend.release, { concurrency: "unbounded" })
      yield* until(Effect.map(leases, (count) => count === 0)).pipe(Effect.timeout("20 seconds"))
      assert.deepStrictEqual(yield* keysOf(bare), [], "no key is left in the store")
    }))
})
