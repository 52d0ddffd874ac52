/**
 * What is sent for a verb, and what is made of the answers.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Option } from "effect"
import * as RedisAttempts from "../src/internal/RedisAttempts.ts"
import * as RedisScripts from "../src/internal/RedisScripts.ts"
import * as RedisVerbs from "../src/internal/RedisVerbs.ts"
import * as support from "./support.ts"
import { type Outcome, refusal } from "./support.ts"

const scripts = RedisScripts.make(true)

const broken: Outcome = { _tag: "Failed", cause: new Error("Connection is closed.") }
const notConnected: Outcome = { _tag: "NotConnected", cause: new Error("connect ECONNREFUSED") }

/** The server's clock is an hour ahead of ours. */
const ahead = 3_600_000_000

const setup = (...outcomes: ReadonlyArray<Outcome>) => {
  const { connection, expire, pass, rewire, sent } = support.setup((_, i) =>
    outcomes[i] ?? assert.fail("more was sent than expected")
  )
  const attempts = RedisAttempts.make("app:", Duration.seconds(5))
  const request = { key: "k", owner: "o", ttl: Duration.seconds(30), onLost: () => {} }
  return {
    sent,
    expire,
    pass,
    rewire,
    attempt: attempts.of(request),
    verbs: RedisVerbs.make(connection, scripts, { isCluster: false, channel: "c", clockAhead: ahead })
  }
}

const keys = ["app:k", "{app:k}:dlock-line", "{app:k}:dlock-waiters", "{app:k}:dlock-void"]
const validUntil = 1_000_000_000 + ahead + 5_000_000 + 1_000_000

const settle = Effect.sleep("20 millis")

describe("taking a key", () => {
  it.live("sends the key, the owner, the lease's life, and until when the request is valid", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup({ reply: "4600000500" })
      const taken = yield* verbs.take(attempt)
      assert.deepStrictEqual(sent, [{
        command: "evalsha",
        args: [scripts.acquire.sha1, "5", ":dlock-fence", ...keys, "", "o", "30000", `${validUntil}`, "-"]
      }])
      assert.deepStrictEqual(taken, {
        _tag: "Granted",
        grant: { validFrom: 1_000_000_000_000n, ttl: Duration.seconds(30), fencingToken: 4_600_000_500n }
      })
    }))

  it.live("sends the whole script to a server that does not have it", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup(refusal("NOSCRIPT No matching script."), { reply: "7" })
      assert.strictEqual((yield* verbs.take(attempt))._tag, "Granted")
      assert.deepStrictEqual(sent.map(({ args, command }) => [command, args[0]]), [
        ["evalsha", scripts.acquire.sha1],
        ["eval", scripts.acquire.source]
      ])
      assert.strictEqual(attempt.unanswered, 0)
    }))

  it.live("takes its place in line with a channel and a ticket", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup({ reply: [[0, "4600000001", 2, 1234], 4_600_000_007] })
      const taken = yield* verbs.take(attempt, "t")
      assert.deepStrictEqual(sent[0]?.args.slice(-5), ["c", "o", "30000", `${validUntil}`, "t"])
      assert.deepStrictEqual(taken, { _tag: "Waiting", ticket: "4600000001", rank: 2, holderMillis: 1234 })
    }))

  it.live("that is ours already tells the token that we know, and else the new one", () =>
    Effect.gen(function*() {
      const again: Outcome = { reply: [[1, "9"], 4_600_000_000] }
      const { attempt, verbs } = setup({ reply: "7" }, again, { reply: [0, 4_600_000_000] }, again)
      const tokens: Array<bigint | undefined> = []
      for (let i = 0; i < 4; i++) {
        const taken = yield* verbs.take(attempt)
        tokens.push(taken._tag === "Granted" ? taken.grant.fencingToken : undefined)
      }
      assert.deepStrictEqual(tokens, [7n, 7n, undefined, 9n], "after another had it, the old one is too small")
    }))

  it.live("asks again when the server's clock is not what we took it for", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup({ reply: [2, 9_000_000_000] }, { reply: "9000001000" })
      yield* verbs.take(attempt)
      const until = Number(sent[1]?.args.at(-2))
      assert.isTrue(until > 9_000_000_000 && until < 9_010_000_000, "by the clock that the server told")
    }))

  it.live("gives up on a server whose clock jumps each time", () =>
    Effect.gen(function*() {
      const jump: Outcome = { reply: [2, 9_000_000_000] }
      const { attempt, verbs } = setup(jump, jump, jump)
      assert.strictEqual((yield* Effect.flip(verbs.take(attempt))).reason, "Protocol")
    }))

  for (const [name, trouble] of [["breaks", broken], ["is not there", notConnected]] as const) {
    it.live(`asks again when the connection ${name}`, () =>
      Effect.gen(function*() {
        const { attempt, sent, verbs } = setup(trouble, { reply: "1" })
        assert.strictEqual((yield* verbs.take(attempt))._tag, "Granted")
        assert.strictEqual(sent.length, 2)
      }))
  }

  it.live("does not ask again when there is no answer in time", () =>
    Effect.gen(function*() {
      const { attempt, expire, verbs } = setup("silence")
      const taking = yield* Effect.forkChild(Effect.flip(verbs.take(attempt)), { startImmediately: true })
      yield* settle
      expire()
      assert.strictEqual((yield* Fiber.join(taking)).reason, "Timeout")
    }))

  it.live("does not ask again for an attempt that was given back meanwhile", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup(broken)
      const taking = yield* Effect.forkChild(Effect.flip(verbs.take(attempt)), { startImmediately: true })
      yield* settle
      attempt.isOver = true
      yield* Fiber.join(taking)
      assert.strictEqual(sent.length, 1)
    }))

  it.live("does not ask at all for an attempt that is given back in the same turn", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup()
      const taking = yield* Effect.forkChild(Effect.exit(verbs.take(attempt)), { startImmediately: true })
      attempt.isOver = true
      yield* Fiber.join(taking)
      assert.deepStrictEqual([sent.length, attempt.wasSent], [0, false])
    }))

  it.live("an answer that makes no sense is an error", () =>
    Effect.gen(function*() {
      for (const reply of [null, 5, [], [9], {}, [[1]], "token"]) {
        const { attempt, verbs } = setup({ reply })
        const reason = yield* verbs.take(attempt).pipe(
          Effect.flip,
          Effect.map((error) => error.reason),
          Effect.catchDefect(() => Effect.succeed("a defect"))
        )
        assert.include(["Protocol", "a defect"], reason, JSON.stringify(reply))
      }
    }))
})

describe("giving back", () => {
  it.live("voids nothing when everything was answered", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup({ reply: "1" }, { reply: 1 })
      yield* verbs.take(attempt)
      assert.isTrue(yield* verbs.giveBack(attempt))
      assert.deepStrictEqual(sent[1]?.args, [scripts.release.sha1, "4", ...keys, "o", "0"])
    }))

  it.live("voids what was not answered, for as long as it is valid", () =>
    Effect.gen(function*() {
      const { attempt, expire, sent, verbs } = setup("silence", { reply: [0] })
      const taking = yield* Effect.forkChild(Effect.flip(verbs.take(attempt)), { startImmediately: true })
      yield* settle
      expire()
      yield* Fiber.join(taking)
      assert.isFalse(yield* verbs.giveBack(attempt))
      assert.strictEqual(sent[1]?.args.at(-1), `${validUntil}`)
    }))

  for (const isSame of [true, false]) {
    it.live(`${isSame ? "voids nothing" : "voids it"} when it goes ${isSame ? "the same" : "another"} way`, () =>
      Effect.gen(function*() {
        const { attempt, expire, rewire, sent, verbs } = setup("silence", { reply: 0 })
        rewire()
        const taking = yield* Effect.forkChild(Effect.flip(verbs.take(attempt)), { startImmediately: true })
        yield* settle
        expire()
        yield* Fiber.join(taking)
        if (!isSame) rewire()
        yield* verbs.giveBack(attempt)
        assert.strictEqual(sent[1]?.args.at(-1), isSame ? "0" : `${validUntil}`)
      }))
  }

  it.live("keeps what the server did not know, or refused, from being sent after it", () =>
    Effect.gen(function*() {
      for (const refused of [refusal("NOSCRIPT No matching script."), refusal("OOM")]) {
        const { attempt, sent, verbs } = setup(refused, { reply: 0 })
        const taking = yield* Effect.forkChild(Effect.exit(verbs.take(attempt)), { startImmediately: true })
        yield* Effect.promise(() => new Promise<void>((resolve) => process.nextTick(resolve)))
        assert.strictEqual(sent.length, 1)
        yield* verbs.giveBack(attempt)
        yield* Fiber.join(taking)
        assert.deepStrictEqual(sent.map(({ args }) => args[0]), [scripts.acquire.sha1, scripts.release.sha1])
      }
    }))

  it.live("voids what was lost on the way, also if the next request was answered", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup(broken, { reply: "1" }, { reply: [1] })
      yield* verbs.take(attempt)
      yield* verbs.giveBack(attempt)
      assert.isTrue(Number(sent[2]?.args.at(-1)) >= validUntil)
    }))

  it.live("ends the attempt", () =>
    Effect.gen(function*() {
      const { attempt, verbs } = setup({ reply: [0] })
      yield* verbs.giveBack(attempt)
      assert.strictEqual((yield* Effect.flip(verbs.take(attempt))).reason, "Protocol")
    }))
})

describe("renewing", () => {
  it.live("touches the lock alone", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup({ reply: "1" }, { reply: [1] })
      yield* verbs.take(attempt)
      assert.isTrue(Option.isSome(yield* verbs.renew(attempt)))
      assert.deepStrictEqual(sent[1]?.args, [scripts.renew.sha1, "1", "app:k", "o", "30000"])
    }))

  it.live("is none when the lock is not ours any more", () =>
    Effect.gen(function*() {
      const { attempt, verbs } = setup({ reply: "1" }, { reply: [0] }, { reply: [0] })
      yield* verbs.take(attempt)
      assert.isTrue(Option.isNone(yield* verbs.renew(attempt)))
      assert.isTrue(Option.isNone(yield* verbs.confirm(attempt)))
    }))
})
