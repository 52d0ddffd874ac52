/**
 * What is sent for a verb, and what is made of the answers.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import * as attempts from "../src/internal/attempts.ts"
import * as requests from "../src/internal/requests.ts"
import * as scripts from "../src/internal/scripts.ts"
import * as support from "./support.ts"
import { type Outcome, refusal } from "./support.ts"

const all = scripts.make(true)

const broken: Outcome = { _tag: "Failed", cause: new Error("Connection is closed.") }
const notConnected: Outcome = { _tag: "NotConnected", cause: new Error("connect ECONNREFUSED") }

/** The server's clock is an hour ahead of ours. */
const ahead = 3_600_000_000

const granted = (token: string, spare = 0): Outcome => ({ reply: `granted ${token} ${spare}` })

const setup = (...outcomes: ReadonlyArray<Outcome>) => setupFor(0, ...outcomes)

const setupFor = (spare: number, ...outcomes: ReadonlyArray<Outcome>) => {
  const { connection, expire, pass, sent } = support.setup((_, i) =>
    outcomes[i] ?? assert.fail("more was sent than expected")
  )
  const means = { connection, scripts: all, channel: "c", limit: 5000, clockAhead: ahead }
  const attempt = attempts.make(support.requestOf("k", "o", spare), "app:", 5000)
  return {
    sent,
    expire,
    pass,
    attempt,
    take: (ticket?: string) => requests.take(means, attempt, ticket),
    renew: requests.renew(means, attempt),
    confirm: (spare = 0) => requests.confirm(means, attempt, spare),
    release: Effect.suspend(() => requests.release(means, attempt))
  }
}

const keys = ["app:k", ...["line", "waiters", "void", "holder"].map((name) => `{app:k}:dlock-${name}`)]
const validUntil = 1_000_000_000 + ahead + 5_000_000 + 1_000_000

const settle = Effect.sleep("20 millis")

describe("taking a key", () => {
  it.live("sends the key, the owner, the lease's life, and until when the request is valid", () =>
    Effect.gen(function*() {
      const { sent, take } = setup(granted("4600000500"))
      const taken = yield* take()
      assert.deepStrictEqual(sent, [{
        command: "evalsha",
        args: [all.acquire.sha1, "6", ":dlock-fence", ...keys, "", "o", "30000", `${validUntil}`, "-", "1"]
      }])
      assert.deepStrictEqual(taken, {
        _tag: "Granted",
        grant: { validFrom: 1_000_000, ttl: 30_000, tokens: { first: 4_600_000_500n, spare: 0 } }
      })
    }))

  it.live("sends the whole script to a server that does not have it", () =>
    Effect.gen(function*() {
      const { attempt, sent, take } = setup(refusal("NOSCRIPT No matching script."), granted("7"))
      assert.strictEqual((yield* take())._tag, "Granted")
      assert.deepStrictEqual(sent.map(({ args, command }) => [command, args[0]]), [
        ["evalsha", all.acquire.sha1],
        ["eval", all.acquire.source]
      ])
      assert.strictEqual(attempt.unanswered, 0)
    }))

  it.live("takes its place in line with a channel and a ticket", () =>
    Effect.gen(function*() {
      const { sent, take } = setup({ reply: "waiting 4600000001 1234" })
      const taken = yield* take("t")
      assert.deepStrictEqual(sent[0]?.args.slice(-6), ["c", "o", "30000", `${validUntil}`, "t", "1"])
      assert.deepStrictEqual(taken, { _tag: "Waiting", ticket: "4600000001", holderMillis: 1234 })
    }))

  it.live("tells the holder of the key where the answer does", () =>
    Effect.gen(function*() {
      for (const [answer, holder] of [["held", undefined], ["held a b/1", "a b/1"], ["waiting 1 -1 a b/1", "a b/1"]]) {
        let held: string | undefined
        const { attempt, take } = setup({ reply: `${answer}` })
        Object.assign(attempt.request, { onHeld: (owner: string) => held = owner })
        yield* take()
        assert.strictEqual(held, holder, answer)
      }
    }))

  it.live("wishes for spare tokens when it is written", () =>
    Effect.gen(function*() {
      const { sent, take } = setupFor(63, granted("7", 12))
      const taken = yield* take()
      assert.strictEqual(sent[0]?.args.at(-1), "64")
      assert.deepStrictEqual(taken._tag === "Granted" && taken.grant.tokens, { first: 7n, spare: 12 })
    }))

  it.live("asks again when the server's clock is not what we took it for", () =>
    Effect.gen(function*() {
      const { sent, take } = setup({ reply: "stale 9000000000" }, granted("9000001000"))
      yield* take()
      const until = Number(sent[1]?.args.at(-3))
      assert.isTrue(until > 9_000_000_000 && until < 9_010_000_000, "by the clock that the server told")
    }))

  it.live("gives up on a server whose clock jumps each time", () =>
    Effect.gen(function*() {
      const jump: Outcome = { reply: "stale 9000000000" }
      const { take } = setup(jump, jump, jump)
      assert.strictEqual((yield* Effect.flip(take())).reason, "Protocol")
    }))

  for (const [name, trouble] of [["breaks", broken], ["is not there", notConnected]] as const) {
    it.live(`asks again when the connection ${name}`, () =>
      Effect.gen(function*() {
        const { sent, take } = setup(trouble, granted("1"))
        assert.strictEqual((yield* take())._tag, "Granted")
        assert.strictEqual(sent.length, 2)
      }))
  }

  it.live("does not ask again when there is no answer in time", () =>
    Effect.gen(function*() {
      const { expire, take } = setup("silence")
      const taking = yield* Effect.forkChild(Effect.flip(take()), { startImmediately: true })
      yield* settle
      expire()
      assert.strictEqual((yield* Fiber.join(taking)).reason, "Timeout")
    }))

  it.live("fails with what the server said before, when there is no time left for another answer", () =>
    Effect.gen(function*() {
      const { expire, pass, take } = setup(refusal("LOADING Redis is loading the dataset in memory"), "silence")
      const taking = yield* Effect.forkChild(Effect.flip(take()), { startImmediately: true })
      yield* Effect.sleep("100 millis")
      pass(5000)
      expire()
      assert.strictEqual((yield* Fiber.join(taking)).reason, "Unreachable")
    }))

  it.live("does not ask again for an attempt that was released meanwhile", () =>
    Effect.gen(function*() {
      const { attempt, sent, take } = setup(broken)
      const taking = yield* Effect.forkChild(Effect.flip(take()), { startImmediately: true })
      yield* settle
      attempt.isOver = true
      yield* Fiber.join(taking)
      assert.strictEqual(sent.length, 1)
    }))

  it.live("does not ask at all for an attempt that is released in the same turn", () =>
    Effect.gen(function*() {
      const { attempt, sent, take } = setup()
      const taking = yield* Effect.forkChild(Effect.exit(take()), { startImmediately: true })
      attempt.isOver = true
      yield* Fiber.join(taking)
      assert.deepStrictEqual([sent.length, attempts.mayBeKept(attempt)], [0, false])
    }))

  it.live("a malformed answer is an error", () =>
    Effect.gen(function*() {
      for (const reply of [null, 5, [], [9], {}, [[1]], "token"]) {
        const { take } = setup({ reply })
        const reason = yield* take().pipe(
          Effect.flip,
          Effect.map((error) => error.reason),
          Effect.catchDefect(() => Effect.succeed("a defect"))
        )
        assert.include(["Protocol", "a defect"], reason, JSON.stringify(reply))
      }
    }))
})

describe("releasing", () => {
  it.live("voids nothing when everything was answered", () =>
    Effect.gen(function*() {
      const { release, sent, take } = setup(granted("1"), { reply: "released" })
      yield* take()
      assert.strictEqual(yield* release, "released")
      assert.deepStrictEqual(sent[1]?.args, [all.release.sha1, "5", ...keys, "o", "0"])
    }))

  it.live("voids what was not answered, for as long as it is valid", () =>
    Effect.gen(function*() {
      const { expire, release, sent, take } = setup("silence", { reply: "gone" })
      const taking = yield* Effect.forkChild(Effect.flip(take()), { startImmediately: true })
      yield* settle
      expire()
      yield* Fiber.join(taking)
      assert.strictEqual(yield* release, "gone")
      assert.strictEqual(sent[1]?.args.at(-1), `${validUntil}`)
    }))

  it.live("keeps what the server did not know, or refused, from being sent after it", () =>
    Effect.gen(function*() {
      for (const refused of [refusal("NOSCRIPT No matching script."), refusal("OOM")]) {
        const { release, sent, take } = setup(refused, { reply: "gone" })
        const taking = yield* Effect.forkChild(Effect.exit(take()), { startImmediately: true })
        yield* Effect.promise(() => new Promise<void>((resolve) => process.nextTick(resolve)))
        assert.strictEqual(sent.length, 1)
        yield* release
        yield* Fiber.join(taking)
        assert.deepStrictEqual(sent.map(({ args }) => args[0]), [all.acquire.sha1, all.release.sha1])
      }
    }))

  it.live("voids what was lost on the way, also if the next request was answered", () =>
    Effect.gen(function*() {
      const { release, sent, take } = setup(broken, granted("1"), { reply: "released" })
      yield* take()
      yield* release
      assert.isTrue(Number(sent[2]?.args.at(-1)) >= validUntil)
    }))

  it.live("is unknown when an earlier copy of it may have freed the key", () =>
    Effect.gen(function*() {
      const { release, take } = setup(granted("1"), broken, { reply: "gone" })
      yield* take()
      assert.strictEqual(yield* release, "unknown")
    }))

  it.live("sends nothing for what was only ever refused, or never sent", () =>
    Effect.gen(function*() {
      const { attempt, take } = setup(refusal("OOM"), { reply: "held" })
      assert.isFalse(attempts.mayBeKept(attempt), "never sent")
      yield* Effect.flip(take())
      assert.isFalse(attempts.mayBeKept(attempt), "refused")
      yield* take()
      assert.isFalse(attempts.mayBeKept(attempt), "held by another")
    }))

  it.live("is owed where an answer came too late to be heard", () =>
    Effect.gen(function*() {
      const { attempt, take } = setup(granted("1"))
      const taking = yield* Effect.forkChild(take(), { startImmediately: true })
      yield* Effect.promise(() => new Promise<void>((resolve) => process.nextTick(resolve)))
      yield* Fiber.interrupt(taking)
      assert.isTrue(attempts.mayBeKept(attempt), "not answered yet")
      yield* settle
      assert.deepStrictEqual([attempt.unanswered, attempts.mayBeKept(attempt)], [0, true], "answered")
    }))

  it.live("ends the attempt", () =>
    Effect.gen(function*() {
      const { release, take } = setup({ reply: "gone" })
      yield* release
      assert.strictEqual((yield* Effect.flip(take())).reason, "Protocol")
    }))
})

describe("renewing", () => {
  it.live("touches the lock alone", () =>
    Effect.gen(function*() {
      const { renew, sent, take } = setup(granted("1"), { reply: ["ours"] })
      yield* take()
      assert.isTrue(Option.isSome(yield* renew))
      assert.deepStrictEqual(sent[1]?.args, [all.renew.sha1, "1", "app:k", "o", "30000"])
    }))

  it.live("is none when the lock is not ours any more", () =>
    Effect.gen(function*() {
      const { confirm, renew, take } = setup(granted("1"), { reply: ["gone"] }, { reply: "gone" })
      yield* take()
      assert.isTrue(Option.isNone(yield* renew))
      assert.isTrue(Option.isNone(yield* confirm()))
    }))
})
