/**
 * Majorities of one to five servers, servers that forget, clocks that jump, and what is left of the promise then.
 */
import type { LockBackend, LockRequest } from "@dlock/core"
import { Redlock } from "@dlock/redis"
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import { proxy } from "../harness/Proxy.ts"
import { millis, newRequest, persist, until } from "../redis/client.ts"
import { relay } from "../redis/relay.ts"
import type { Node } from "./support.ts"
import { addrsOf, countOf, RedisServers, servers } from "./support.ts"

const clientOf = (nodes: ReadonlyArray<Node>) =>
  persist(Redlock.make({ nodes: addrsOf(nodes), commandTimeout: "1 second" }))

const fenceOf = (key: string) => `{${key}}:dlock-fence`

const del = (nodes: ReadonlyArray<Node>, key: string) =>
  Effect.forEach(nodes, ({ bare }) => Effect.promise(() => bare.del(key)), { discard: true })

const tokens = (nodes: ReadonlyArray<Node>, key: string) =>
  Effect.forEach(nodes, ({ bare }) => Effect.promise(() => bare.get(fenceOf(key))))

const untilCount = (nodes: ReadonlyArray<Node>, request: LockRequest, n: number) =>
  until(Effect.map(countOf(nodes, request.key, request.owner), (count) => count === n))

const take = (client: LockBackend["Service"], request: LockRequest) =>
  Effect.map(client.tryAcquire(request), (grant) => Option.getOrElse(grant, () => assert.fail("the key is free")))

const isHeld = (client: LockBackend["Service"], key: string) =>
  Effect.gen(function*() {
    const request = newRequest(key)
    const grant = yield* client.tryAcquire(request)
    if (Option.isSome(grant)) yield* client.release(request)
    return Option.isNone(grant)
  })

layer(RedisServers.layer(), { excludeTestServices: true, timeout: "1 minute" })("a majority", (it) => {
  for (const n of [1, 2, 3, 4, 5]) {
    it.effect(`of ${n} servers is ${Math.floor(n / 2) + 1}`, () =>
      Effect.gen(function*() {
        const nodes = (yield* RedisServers).slice(0, n)
        const client = yield* clientOf(nodes)
        const majority = Math.floor(n / 2) + 1
        const key = `quorum/size ${n}`
        // A client that follows the manual holds it on as many servers as still leave us a majority, then on one more.
        for (const others of [n - majority, n - majority + 1]) {
          for (const { bare } of nodes.slice(0, others)) {
            yield* Effect.promise(() => bare.set(key, "theirs", "PX", 30_000, "NX"))
          }
          const request = newRequest(key)
          const grant = yield* client.tryAcquire(request)
          assert.strictEqual(Option.isSome(grant), others <= n - majority, `${others} of ${n} are held by another`)
          if (Option.isSome(grant)) {
            assert.strictEqual(yield* countOf(nodes, key, request.owner), n - others, "the value is the owner")
            assert.isTrue(Option.isSome(yield* client.renew(request, {})), "what a majority holds is renewed")
            assert.strictEqual(yield* client.release(request), "released", "what a majority holds is released")
          }
          yield* untilCount(nodes, request, 0)
          assert.strictEqual(yield* countOf(nodes, key, "theirs"), others, "what is another's stays")
        }
      }))

    it.effect(`of ${n} servers ends a tie, however many come at the same time`, () =>
      Effect.gen(function*() {
        const nodes = (yield* RedisServers).slice(0, n)
        const clients = yield* Effect.replicateEffect(clientOf(nodes), 4)
        const key = `quorum/tie ${n}`
        let inside = 0
        let last = 0n
        const section = (client: LockBackend["Service"]) =>
          Effect.gen(function*() {
            const request = newRequest(key)
            const { tokens: { first: fencingToken } } = yield* client.acquire(request)
            assert.strictEqual(++inside, 1, "one at a time")
            assert.isTrue(fencingToken > last, "tokens grow")
            last = fencingToken
            yield* Effect.yieldNow
            inside--
            assert.strictEqual(yield* client.release(request), "released", "what is held is released")
          })
        const [, time] = yield* millis(
          Effect.forEach(clients, (client) => Effect.repeat(section(client), { times: 9 }), {
            concurrency: "unbounded",
            discard: true
          })
        )
        assert.isBelow(time, 50_000, "40 turns of four contenders")
      }))
  }

  it.effect("is not made of one server under two names", () =>
    Effect.gen(function*() {
      const [a, b] = yield* RedisServers
      if (a === undefined || b === undefined) return
      const road = yield* proxy(a.server)
      const error = yield* Effect.flip(Redlock.make({ nodes: [a.server.addr, b.server.addr, road.addr] }))
      assert.strictEqual(error.reason, "Options")
      assert.match(error.message, /are one server, which has one vote/)
    }))

  it.effect("that none has is tried for again, also by those that do not wait", () =>
    Effect.gen(function*() {
      const nodes = (yield* RedisServers).slice(0, 4)
      const client = yield* clientOf(nodes)
      const request = newRequest("quorum/half")
      for (const { bare } of nodes.slice(0, 2)) {
        yield* Effect.promise(() => bare.set(request.key, "theirs", "PX", 20, "NX"))
      }
      yield* take(client, request)
      assert.strictEqual(yield* client.release(request), "released", "what is held is released")
    }))

  it.effect("of one try of several at once has a winner", () =>
    Effect.gen(function*() {
      // Every server answers, however busy the machine is: only the requests get in each other's way.
      const nodes = addrsOf(yield* RedisServers)
      const clients = yield* Effect.replicateEffect(Redlock.make({ nodes, nodeTimeout: "2 seconds" }), 4)
      let won = 0
      for (let round = 0; round < 20; round++) {
        const requests = clients.map(() => newRequest(`quorum/try ${round}`))
        const grants = yield* Effect.forEach(
          clients,
          (client, i) => client.tryAcquire(requests[i] ?? assert.fail()),
          { concurrency: "unbounded" }
        )
        const winners = grants.filter(Option.isSome).length
        assert.isBelow(winners, 2, "at most one")
        won += winners
      }
      assert.isAbove(won, 15, "as a rule one wins")
    }))

  it.effect("keeps bare clients of the manual out, and is kept out by them", () =>
    Effect.gen(function*() {
      const nodes = yield* RedisServers
      const client = yield* clientOf(nodes)
      const ours = newRequest("quorum/manual")
      yield* client.acquire(ours)
      const answers = yield* Effect.forEach(
        nodes,
        ({ bare }) => Effect.promise(() => bare.set(ours.key, "theirs", "PX", 30_000, "NX"))
      )
      assert.deepStrictEqual(answers, [null, null, null, null, null], "no server gives away what is ours")
      yield* client.release(ours)
      yield* untilCount(nodes, ours, 0)
      for (const { bare } of nodes.slice(2)) {
        yield* Effect.promise(() => bare.set(ours.key, "theirs", "PX", 1000, "NX"))
      }
      const waiting = yield* millis(client.acquire(newRequest(ours.key)))
      assert.isAbove(waiting[1], 900, "a majority of another is waited for")
      assert.isBelow(waiting[1], 10_000, "and our own ttl is not")
    }))
})

layer(RedisServers.layer(), { excludeTestServices: true, timeout: "1 minute" })("a lease", (it) => {
  it.effect("comes back to a server that was restarted empty, with its token", () =>
    Effect.gen(function*() {
      const nodes = yield* servers(5)
      const client = yield* clientOf(nodes)
      const request = newRequest("quorum/wiped")
      const { tokens: { first: fencingToken } } = yield* client.acquire(request)
      yield* untilCount(nodes, request, 5)
      const [victim] = nodes
      if (victim === undefined) return
      yield* victim.server.kill
      yield* victim.server.wipe
      yield* victim.server.start
      yield* Effect.sleep("1500 millis")
      assert.strictEqual(yield* countOf(nodes, request.key, request.owner), 4, "it has forgotten")
      assert.isTrue(Option.isSome(yield* client.renew(request, {})), "a majority still holds")
      yield* untilCount(nodes, request, 5)
      assert.deepStrictEqual(yield* tokens([victim], request.key), [`${fencingToken}`], "it knows the token again")
      const ttl = yield* Effect.promise(() => victim.bare.pttl(request.key))
      assert.isTrue(ttl > 25_000 && ttl <= 30_000, "for as long as the lease lasts")
      assert.strictEqual(yield* client.release(request), "released", "what is held is released")
      yield* untilCount(nodes, request, 0)
    }))

  it.effect("is not put back without a majority", () =>
    Effect.gen(function*() {
      const nodes = yield* RedisServers
      const client = yield* clientOf(nodes)
      const request = newRequest("quorum/majority lost")
      yield* client.acquire(request)
      yield* del(nodes.slice(0, 3), request.key)
      assert.isTrue(Option.isNone(yield* client.renew(request, {})), "three of five do not know us")
      yield* Effect.sleep("50 millis")
      assert.strictEqual(yield* countOf(nodes, request.key, request.owner), 2, "nothing is put back")
      assert.isFalse(yield* isHeld(client, request.key), "others can have the key")
      assert.strictEqual(yield* client.release(request), "gone", "it was not ours any more")
      yield* untilCount(nodes, request, 0)
    }))

  it.effect("is not put back after its release", () =>
    Effect.gen(function*() {
      const nodes = yield* RedisServers
      const client = yield* clientOf(nodes)
      for (let i = 0; i < 20; i++) {
        const request = newRequest(`quorum/put back ${i}`)
        yield* client.acquire(request)
        yield* del(nodes.slice(0, 2), request.key)
        const renewing = yield* Effect.forkChild(client.renew(request, {}), { startImmediately: true })
        if (i % 2 === 0) yield* Effect.yieldNow
        yield* client.release(request)
        yield* Fiber.join(renewing)
        yield* Effect.sleep("5 millis")
        assert.strictEqual(yield* countOf(nodes, request.key, request.owner), 0, "nothing is left")
      }
    }))

  it.effect("holds while the clocks of a minority jump", () =>
    Effect.gen(function*() {
      const nodes = yield* RedisServers
      const client = yield* clientOf(nodes)
      const request = newRequest("quorum/minority jumps")
      yield* client.acquire(request)
      for (const { bare } of nodes.slice(0, 2)) yield* Effect.promise(() => bare.pexpire(request.key, 1))
      yield* untilCount(nodes, request, 3)
      assert.isTrue(yield* isHeld(client, request.key), "a majority excludes others")
      assert.isTrue(Option.isSome(yield* client.renew(request, {})), "a majority renews")
      yield* untilCount(nodes, request, 5)
      yield* client.release(request)
    }))

  it.effect("is lost when the clocks of a majority jump, which the next renewal tells", () =>
    Effect.gen(function*() {
      const nodes = yield* RedisServers
      const client = yield* clientOf(nodes)
      const request = newRequest("quorum/majority jumps")
      const first = yield* client.acquire(request)
      for (const { bare } of nodes.slice(0, 3)) yield* Effect.promise(() => bare.pexpire(request.key, 1))
      yield* Effect.sleep("10 millis")
      const next = newRequest(request.key)
      const second = yield* take(client, next)
      assert.isTrue(second.tokens.first > first.tokens.first, "the resource can tell the first from the second")
      assert.isTrue(Option.isNone(yield* client.renew(request, {})), "the first is told")
      assert.isTrue(Option.isSome(yield* client.renew(next, {})), "the second is not harmed")
      yield* client.release(request)
      yield* client.release(next)
    }))

  it.effect("on A, B and C is overtaken on C, D and E when the clock of C jumps, and only the token tells", () =>
    Effect.gen(function*() {
      const nodes = yield* RedisServers
      const client = yield* clientOf(nodes)
      const request = newRequest("quorum/Kleppmann")
      const late = nodes.slice(3)
      for (const { bare } of late) yield* Effect.promise(() => bare.set(request.key, "gone soon", "PX", 30_000))
      const first = yield* take(client, request)
      yield* del(late, request.key)
      yield* del(nodes.slice(2, 3), request.key)
      const next = newRequest(request.key)
      const second = yield* take(client, next)
      assert.isTrue(second.tokens.first > first.tokens.first, "tokens grow where exclusion is broken")
      assert.isTrue(Option.isNone(yield* client.renew(request, {})), "the first is told at its next renewal")
      yield* client.release(request)
      yield* client.release(next)
    }))

  it.effect("has the highest token that a server proposes, known to a majority before it is given out", () =>
    Effect.gen(function*() {
      const nodes = yield* RedisServers
      const client = yield* clientOf(nodes)
      const future = `${BigInt(Date.now() + 1_000_000) * 1000n}`
      for (const [i, { bare }] of nodes.entries()) {
        const request = newRequest(`quorum/write back ${i}`)
        yield* Effect.promise(() => bare.set(fenceOf(request.key), future))
        // The others are held by another, so that this one counts.
        const others = nodes.filter((node) => node.bare !== bare).slice(0, 2)
        for (const other of others) yield* Effect.promise(() => other.bare.set(request.key, "theirs", "PX", 30_000))
        const { tokens: { first: fencingToken } } = yield* client.acquire(request)
        assert.strictEqual(fencingToken, BigInt(future) + 1n, "one more than the highest")
        const known = (yield* tokens(nodes, request.key)).filter((token) => token === `${fencingToken}`)
        assert.strictEqual(known.length, 3, "a majority knows it")
        yield* client.release(request)
        yield* del(others, request.key)
        yield* Effect.promise(() => bare.set(request.key, "theirs", "PX", 30_000))
        const next = newRequest(request.key)
        assert.isTrue((yield* take(client, next)).tokens.first > fencingToken, "also without that server")
        yield* client.release(next)
      }
    }))

  it.effect("does not come of requests that arrive after their release", () =>
    Effect.gen(function*() {
      const nodes = yield* RedisServers
      const roads = yield* Effect.forEach(nodes, ({ server }) => relay(server))
      const client = yield* persist(Redlock.make({
        nodes: roads.map(({ addr }) => addr),
        nodeTimeout: "100 millis",
        commandTimeout: "300 millis"
      }))
      const warm = newRequest("quorum/warm")
      yield* persist(client.acquire(warm))
      yield* client.release(warm)
      // The mark of a release lives for about two seconds; what arrives later has expired itself.
      for (const [count, later] of [[2, 700], [3, 700], [5, 700], [2, 2500]] as const) {
        const request = newRequest(`quorum/late ${count} ${later}`)
        const frozen = roads.slice(0, count)
        yield* Effect.forEach(frozen, (road) => road.freeze)
        const tried = yield* Effect.exit(client.tryAcquire(request))
        assert.strictEqual(tried._tag === "Success", count === 2, "a majority is enough")
        yield* Effect.forEach(frozen, (road) => road.breakOff)
        // Over new connections the release overtakes what is frozen.
        yield* Effect.retry(client.release(request), { times: 1000, while: () => Effect.as(Effect.sleep(20), true) })
        yield* Effect.sleep(later)
        yield* Effect.forEach(frozen, (road) => road.thaw)
        yield* Effect.sleep("100 millis")
        const values = yield* Effect.forEach(nodes, ({ bare }) => Effect.promise(() => bare.get(request.key)))
        assert.deepStrictEqual(values, [null, null, null, null, null], "nothing is held that was released")
        assert.isFalse(yield* isHeld(client, request.key), "others can have the key")
      }
    }))
})
