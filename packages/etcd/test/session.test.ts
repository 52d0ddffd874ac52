import { LockBackendError } from "@dlock/core"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Limits } from "../src/internal/calls.ts"
import type { EtcdClient, LeaseAnswer } from "../src/internal/client.ts"
import * as sessions from "../src/internal/session.ts"

type KeepAlive = (id: string, limits: Limits) => Effect.Effect<LeaseAnswer, LockBackendError>

const unreachable = new LockBackendError({ backend: "etcd", operation: "renew", reason: "Unreachable" })
const notAsked = Effect.die("not asked in these tests")

/** A server that grants what it is asked for, and a record of what it was asked. */
const fake = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const calls: Array<string> = []
  const seconds = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e9
  const answer = (id: string, ttl: number): LeaseAnswer => ({ id, ttl, sentAt: seconds() * 1000 })
  let leases = 0
  const server = {
    calls,
    answer,
    keepAlive: ((id) => Effect.sync(() => answer(id, 20))) as KeepAlive
  }
  const note = (call: string) => Effect.sync(() => void calls.push(`${seconds()} ${call}`))
  const client: EtcdClient = {
    isGiven: false,
    now: () => seconds() * 1000,
    probe: () => notAsked,
    version: () => notAsked,
    range: () => notAsked,
    remaining: () => notAsked,
    txn: () => notAsked,
    txnOnLease: () => notAsked,
    keysOf: () => notAsked,
    watch: () => assert.fail("not asked in these tests"),
    grant: (ttl) => Effect.andThen(note(`grant ${ttl}`), Effect.sync(() => answer(`${++leases}`, ttl))),
    keepAlive: (id, limits) =>
      Effect.andThen(note(`keepAlive ${id}`), Effect.suspend(() => server.keepAlive(id, limits))),
    revoke: (id) => note(`revoke ${id}`)
  }
  return { server, all: yield* sessions.make(client, 5000), now: seconds }
})

const makeMember = () => {
  const losses: Array<string> = []
  const member: sessions.Member = { session: undefined, onSessionEnd: (reason) => losses.push(reason) }
  return { member, losses }
}

const ttl = 20_000

describe("session", () => {
  it.effect("is shared by all of one rung, and granted when first asked for", () =>
    Effect.gen(function*() {
      const { all, server } = yield* fake
      assert.deepStrictEqual(server.calls, [], "nothing is granted before it is asked for")
      const joins = Array.from({ length: 20 }, () => sessions.join(all, makeMember().member, ttl))
      const joined = yield* Effect.all(joins, { concurrency: "unbounded" })
      assert.strictEqual(new Set(joined).size, 1)
      yield* sessions.join(all, makeMember().member, 18_000)
      yield* sessions.join(all, makeMember().member, 21_000)
      assert.deepStrictEqual(server.calls, ["0 grant 20", "0 grant 25"])
    }))

  it.effect("is refreshed every quarter of its ttl, with one request however many live on it", () =>
    Effect.gen(function*() {
      const { all, server } = yield* fake
      for (let i = 0; i < 1000; i++) yield* sessions.join(all, makeMember().member, ttl)
      yield* TestClock.adjust("21 seconds")
      assert.deepStrictEqual(server.calls.slice(1), [
        "5 keepAlive 1",
        "10 keepAlive 1",
        "15 keepAlive 1",
        "20 keepAlive 1"
      ])
    }))

  it.effect("counts from the instant of sending, and ends before the server would end it", () =>
    Effect.gen(function*() {
      const { all, now, server } = yield* fake
      const { losses, member } = makeMember()
      const session = yield* sessions.join(all, member, ttl)
      // Answered once, three seconds late, and never again.
      server.keepAlive = (id) => {
        const answer = server.answer(id, 20)
        server.keepAlive = (_, { total }) => Effect.andThen(Effect.sleep(total), Effect.fail(unreachable))
        return Effect.delay(Effect.succeed(answer), "3 seconds")
      }
      yield* TestClock.adjust("8 seconds")
      assert.strictEqual(session.validFrom, 5000, "good from when the keepalive was sent")
      yield* TestClock.adjust("16500 millis")
      assert.deepStrictEqual(losses, [], `still good at ${now()} s`)
      yield* TestClock.adjust("400 millis")
      assert.deepStrictEqual(losses, ["expired"], `over at ${now()} s, before the server's 25 s`)
      assert.strictEqual(session.ended, "expired")
      assert.include(server.calls, "24.798 revoke 1", "the server is told, should it still have it")
    }))

  it.effect("goes on when a keepalive fails and a later one does not", () =>
    Effect.gen(function*() {
      const { all, server } = yield* fake
      const { losses, member } = makeMember()
      yield* sessions.join(all, member, ttl)
      const healthy = server.keepAlive
      server.keepAlive = () => Effect.fail(unreachable)
      yield* TestClock.adjust("15 seconds")
      server.keepAlive = healthy
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(losses, [])
    }))

  it.effect("is over when the server does not have it, and the next one takes its place", () =>
    Effect.gen(function*() {
      const { all, server } = yield* fake
      const { losses, member } = makeMember()
      const session = yield* sessions.join(all, member, ttl)
      server.keepAlive = (id) => Effect.sync(() => server.answer(id, id === "1" ? 0 : 20))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(losses, ["session"])
      assert.strictEqual(session.members.size, 0)
      const next = yield* sessions.join(all, member, ttl)
      assert.notStrictEqual(next, session)
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(losses, ["session"], "the next one stays")
    }))

  it.effect("closes when it has not been used for a ttl, but not while a release is owed", () =>
    Effect.gen(function*() {
      const { all, server } = yield* fake
      const { losses, member } = makeMember()
      yield* sessions.join(all, member, ttl)
      yield* TestClock.adjust("2 minutes")
      assert.isFalse(server.calls.some((call) => call.includes("revoke")), "a member keeps it")
      sessions.leave(all, member)
      yield* TestClock.adjust("19 seconds")
      assert.isFalse(server.calls.some((call) => call.includes("revoke")), "it may be used again")
      yield* TestClock.adjust("6 seconds")
      assert.isTrue(server.calls.some((call) => call.includes("revoke 1")))
      const asked = server.calls.length
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(server.calls.length, asked, "an idle backend asks nothing")
      assert.deepStrictEqual(losses, [], "one that has left is not told of a loss")
    }))

  it.effect("takes no more members when many marks stand on it", () =>
    Effect.gen(function*() {
      const { all, server } = yield* fake
      const session = yield* sessions.join(all, makeMember().member, ttl)
      session.marks = 999
      assert.strictEqual(yield* sessions.join(all, makeMember().member, ttl), session)
      session.marks = 1000
      const next = yield* sessions.join(all, makeMember().member, ttl)
      assert.notStrictEqual(next, session)
      assert.isUndefined(session.ended, "what lives on it stays")
      assert.deepStrictEqual(server.calls, ["0 grant 20", "0 grant 20"])
    }))

  it.effect("was suspended when the machine slept", () =>
    Effect.gen(function*() {
      const { all } = yield* fake
      const session = yield* sessions.join(all, makeMember().member, ttl)
      const clock = yield* Clock.Clock
      assert.isFalse(session.wasSuspended(clock))
      const slept: Clock.Clock = Object.create(clock, {
        currentTimeMillisUnsafe: { value: () => clock.currentTimeMillisUnsafe() + 1000 }
      })
      assert.isTrue(session.wasSuspended(slept), "wall time ran ahead of monotonic time by more than the drift")
    }))

  it.effect("is asked for once by all who ask at the same time", () =>
    Effect.gen(function*() {
      const { all, server } = yield* fake
      const session = yield* sessions.join(all, makeMember().member, ttl)
      server.keepAlive = (id) => Effect.delay(Effect.sync(() => server.answer(id, 20)), "1 second")
      const asking = yield* Effect.forkChild(
        Effect.all(Array.from({ length: 50 }, () => sessions.refresh(all, session)), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(asking)
      assert.deepStrictEqual(server.calls, ["0 grant 20", "0 keepAlive 1"])
    }))

  it.effect("that is over for us is not asked for any more: it ends, and what lives on it is lost", () =>
    Effect.gen(function*() {
      const { all, server } = yield* fake
      const { losses, member } = makeMember()
      const session = yield* sessions.join(all, member, ttl)
      // As it is found by a process that was frozen.
      session.validFrom -= ttl
      yield* sessions.refresh(all, session)
      assert.deepStrictEqual(losses, ["expired"])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(server.calls, ["0 grant 20", "0 revoke 1"])
    }))
})
