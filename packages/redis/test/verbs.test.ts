/**
 * What is sent for a verb, and what is made of the answers, over a client that answers as it is told.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import * as RedisAttempts from "../src/internal/RedisAttempts.ts"
import type { Connection, Failure, Request } from "../src/internal/RedisClient.ts"
import * as RedisScripts from "../src/internal/RedisScripts.ts"
import * as RedisVerbs from "../src/internal/RedisVerbs.ts"

const scripts = RedisScripts.make(true)

type Outcome = { readonly reply: unknown } | { readonly failure: Failure, readonly answered?: boolean }

const refusal = (message: string): Outcome => ({
  failure: { _tag: "Failed", cause: Object.assign(new Error(message), { name: "ReplyError" }) },
  answered: true
})
const broken: Outcome = { failure: { _tag: "Failed", cause: new Error("Connection is closed.") } }
const late: Outcome = { failure: { _tag: "Late" } }
const notConnected: Outcome = { failure: { _tag: "NotConnected", cause: new Error("connect ECONNREFUSED") } }

/** The server's clock is an hour ahead of ours. */
const ahead = 3_600_000_000

const setup = (...outcomes: ReadonlyArray<Outcome>) => {
  let nanos = 1_000_000_000_000n
  const sent: Array<{ readonly command: string, readonly args: ReadonlyArray<string> }> = []
  const client: Connection = {
    connect: Effect.void,
    ready: Effect.void,
    epoch: () => 1,
    now: () => nanos,
    send: (request: Request) =>
      Effect.suspend(() => {
        const outcome = outcomes[sent.length] ?? assert.fail("more was sent than expected")
        const isSent = !("failure" in outcome) || outcome.failure._tag !== "NotConnected"
        const args = isSent ? request.args(nanos) : []
        sent.push({ command: request.command, args })
        const sentAt = nanos
        nanos += 1_000_000n
        if ("failure" in outcome) {
          if (outcome.answered === true) request.onAnswer?.()
          return Effect.fail(outcome.failure)
        }
        request.onAnswer?.()
        return Effect.succeed({ reply: outcome.reply, sentAt })
      })
  }
  const attempts = RedisAttempts.make("app:", Duration.seconds(5))
  const request = { key: "k", owner: "o", ttl: Duration.seconds(30), onLost: () => {} }
  return {
    sent,
    attempt: attempts.begin(request),
    verbs: RedisVerbs.make(client, scripts, ahead),
    pass: (time: Duration.Input) => {
      nanos += Duration.toNanosUnsafe(Duration.fromInputUnsafe(time))
    }
  }
}

const keys = ["app:k", "{app:k}:dlock-line", "{app:k}:dlock-waiters", "{app:k}:dlock-fence", "{app:k}:dlock-void/o"]
const validUntil = 1_000_000_000 + ahead + 5_000_000 + 1_000_000

describe("taking a key", () => {
  it.effect("sends the key, the owner, the lives, and until when the request is valid", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup({ reply: "4600000500" })
      const taken = yield* verbs.take(attempt)
      assert.deepStrictEqual(sent, [{
        command: "evalsha",
        args: [scripts.acquire.sha1, "5", ...keys, "o", "30000", "3630000", `${validUntil}`]
      }])
      assert.deepStrictEqual(taken, {
        _tag: "Granted",
        grant: { validFrom: 1_000_000_000_000n, ttl: Duration.seconds(30), fencingToken: 4_600_000_500n }
      })
    }))

  it.effect("sends the whole script to a server that does not have it", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup(refusal("NOSCRIPT No matching script."), { reply: "7" })
      assert.strictEqual((yield* verbs.take(attempt))._tag, "Granted")
      assert.deepStrictEqual(sent.map(({ args, command }) => [command, args[0]]), [
        ["evalsha", scripts.acquire.sha1],
        ["eval", scripts.acquire.source]
      ])
      assert.strictEqual(attempt.unanswered, 0, "a refusal is an answer")
    }))

  it.effect("takes its place in line with a channel and a ticket", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup({ reply: [0, ["4600", "7"], "4600000001", 2, 1234] })
      const taken = yield* verbs.take(attempt, { channel: "c", ticket: "t" })
      assert.deepStrictEqual(sent[0]?.args.slice(-2), ["c", "t"])
      assert.deepStrictEqual(taken, { _tag: "Waiting", ticket: "4600000001", rank: 2, holderMillis: 1234 })
    }))

  it.effect("asks again when the server's clock is not what we took it for", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup({ reply: [2, ["9000", "0"]] }, { reply: "9000001000" })
      yield* verbs.take(attempt)
      const until = Number(sent[1]?.args.at(-1))
      assert.isTrue(until > 9_000_000_000 && until < 9_010_000_000, "by the clock that the server told")
    }))

  it.effect("gives up on a server whose clock jumps each time", () =>
    Effect.gen(function*() {
      const jump: Outcome = { reply: [2, ["9000", "0"]] }
      const { attempt, verbs } = setup(jump, jump, jump)
      assert.strictEqual((yield* Effect.flip(verbs.take(attempt))).reason, "Protocol")
    }))

  for (const [name, trouble] of [["breaks", broken], ["is not there", notConnected]] as const) {
    it.effect(`asks again when the connection ${name}`, () =>
      Effect.gen(function*() {
        const { attempt, sent, verbs } = setup(trouble, { reply: "1" })
        const taking = yield* Effect.forkChild(verbs.take(attempt), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(taking))._tag, "Granted")
        assert.strictEqual(sent.length, 2)
      }))
  }

  it.effect("does not ask again when there is no answer in time", () =>
    Effect.gen(function*() {
      const { attempt, verbs } = setup(late)
      assert.strictEqual((yield* Effect.flip(verbs.take(attempt))).reason, "Timeout")
    }))

  it.effect("does not ask again for an attempt that was given back meanwhile", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup(broken)
      const taking = yield* Effect.forkChild(Effect.flip(verbs.take(attempt)), { startImmediately: true })
      attempt.isOver = true
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(taking)
      assert.strictEqual(sent.length, 1)
    }))

  it.effect("an answer that makes no sense is an error", () =>
    Effect.gen(function*() {
      for (const reply of [null, 5, [], [9], {}]) {
        const { attempt, verbs } = setup({ reply })
        assert.strictEqual((yield* Effect.flip(verbs.take(attempt))).reason, "Protocol", JSON.stringify(reply))
      }
    }))
})

describe("giving back", () => {
  it.effect("voids nothing when everything was answered", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup({ reply: "1" }, { reply: 1 })
      yield* verbs.take(attempt)
      assert.isTrue(yield* verbs.giveBack(attempt))
      assert.strictEqual(sent[1]?.args.at(-1), "0")
    }))

  it.effect("voids what was not answered, for as long as it is valid", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup(late, { reply: 0 })
      yield* Effect.flip(verbs.take(attempt))
      assert.isFalse(yield* verbs.giveBack(attempt))
      assert.strictEqual(sent[1]?.args.at(-1), `${validUntil}`)
    }))

  it.effect("voids what was lost on the way, also if the next request was answered", () =>
    Effect.gen(function*() {
      const { attempt, sent, verbs } = setup(broken, { reply: "1" }, { reply: 1 })
      const taking = yield* Effect.forkChild(verbs.take(attempt), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(taking)
      yield* verbs.giveBack(attempt)
      assert.isTrue(Number(sent[2]?.args.at(-1)) >= validUntil)
    }))

  it.effect("ends the attempt", () =>
    Effect.gen(function*() {
      const { attempt, verbs } = setup({ reply: 0 })
      yield* verbs.giveBack(attempt)
      assert.strictEqual((yield* Effect.flip(verbs.take(attempt))).reason, "Protocol")
    }))
})

describe("renewing", () => {
  it.effect("touches the lock alone, and from time to time the token", () =>
    Effect.gen(function*() {
      const { attempt, pass, sent, verbs } = setup({ reply: "1" }, { reply: 1 }, { reply: "1" }, { reply: 1 })
      yield* verbs.take(attempt)
      pass("20 minutes")
      assert.isTrue(Option.isSome(yield* verbs.renew(attempt)))
      pass("20 minutes")
      assert.isTrue(Option.isSome(yield* verbs.renew(attempt)))
      pass("20 minutes")
      assert.isTrue(Option.isSome(yield* verbs.renew(attempt)))
      const lock = [scripts.renew.sha1, "1", "app:k", "o", "30000", "3630000"]
      assert.deepStrictEqual(sent.slice(1).map(({ args }) => args), [
        lock,
        [scripts.confirm.sha1, "2", "app:k", "{app:k}:dlock-fence", "o", "30000", "3630000"],
        lock
      ])
    }))

  it.effect("is none when the lock is not ours any more", () =>
    Effect.gen(function*() {
      const { attempt, verbs } = setup({ reply: "1" }, { reply: 0 }, { reply: null })
      yield* verbs.take(attempt)
      assert.isTrue(Option.isNone(yield* verbs.renew(attempt)))
      assert.isTrue(Option.isNone(yield* verbs.confirm(attempt)))
    }))
})
