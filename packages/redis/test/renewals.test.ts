/**
 * Renewals that fall due together, over a client that answers as it is told.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Option } from "effect"
import * as RedisAttempts from "../src/internal/RedisAttempts.ts"
import type { Connection, Failure, Request } from "../src/internal/RedisClient.ts"
import * as RedisRenewals from "../src/internal/RedisRenewals.ts"
import * as RedisScripts from "../src/internal/RedisScripts.ts"
import * as RedisVerbs from "../src/internal/RedisVerbs.ts"

const scripts = RedisScripts.make(true)

const refusal: Failure = {
  _tag: "Failed",
  cause: Object.assign(new Error("NOPERM No permissions to access a key"), { name: "ReplyError" })
}

/** `answer` is given what is sent, and how many were sent before. */
const setup = Effect.fnUntraced(function*(answer: (args: ReadonlyArray<string>, index: number) => unknown) {
  const sent: Array<ReadonlyArray<string>> = []
  const client: Connection = {
    connect: Effect.void,
    ready: Effect.void,
    epoch: () => 1,
    now: () => 1_000n,
    send: (request: Request) =>
      Effect.suspend(() => {
        const args = request.args(1_000n)
        const reply = answer(args, sent.push(args) - 1)
        return reply === refusal ? Effect.fail(refusal) : Effect.succeed({ reply, sentAt: 1_000n })
      })
  }
  const attempts = RedisAttempts.make("", Duration.seconds(5))
  const renew = yield* RedisRenewals.make(client, scripts, RedisVerbs.make(client, scripts, 0))
  const begin = (key: string, ttl: Duration.Duration = Duration.seconds(30)) =>
    attempts.begin({ key, owner: `${key}-owner`, ttl, onLost: () => {} })
  const renewAll = (keys: ReadonlyArray<string>) =>
    Effect.forEach(keys, (key) => Effect.exit(renew(begin(key))), { concurrency: "unbounded" })
  return { begin, renew, renewAll, sent }
})

const isRenewed = <A, E>(exit: Exit.Exit<Option.Option<A>, E>) =>
  Exit.match(exit, { onSuccess: (answer) => Option.isSome(answer), onFailure: () => undefined })

describe("renewals that fall due together", () => {
  it.effect("are one command, and everybody gets the own answer", () =>
    Effect.gen(function*() {
      const { renewAll, sent } = yield* setup(() => [1, 0, 1])
      const exits = yield* renewAll(["a", "b", "c"])
      assert.deepStrictEqual(exits.map((exit) => isRenewed(exit)), [true, false, true])
      assert.deepStrictEqual(sent, [
        [scripts.renewMany.sha1, "3", "a", "b", "c", "a-owner", "30000", "b-owner", "30000", "c-owner", "30000"]
      ])
    }))

  it.effect("are as before when there is only one", () =>
    Effect.gen(function*() {
      const { renewAll, sent } = yield* setup(() => 1)
      assert.deepStrictEqual((yield* renewAll(["a"])).map((exit) => isRenewed(exit)), [true])
      assert.strictEqual(sent[0]?.[0], scripts.renew.sha1)
    }))

  it.effect("are in commands of a hundred, so that nobody else waits for long", () =>
    Effect.gen(function*() {
      const { renewAll, sent } = yield* setup((args) => Array.from({ length: Number(args[1]) }, () => 1))
      const exits = yield* renewAll(Array.from({ length: 250 }, (_, i) => `k${i}`))
      assert.isTrue(exits.every((exit) => isRenewed(exit) === true))
      assert.deepStrictEqual(sent.map((args) => args[1]), ["100", "100", "50"])
    }))

  it.effect("are asked for one by one when the server refuses them together", () =>
    Effect.gen(function*() {
      const { renewAll, sent } = yield* setup((args, i) => i === 0 || args[2] === "b" ? refusal : 1)
      const exits = yield* renewAll(["a", "b", "c"])
      assert.deepStrictEqual(exits.map((exit) => isRenewed(exit)), [true, undefined, true])
      assert.strictEqual(sent.length, 4)
    }))

  it.effect("are asked for one by one when the answer makes no sense", () =>
    Effect.gen(function*() {
      const { renewAll } = yield* setup((_, i) => i === 0 ? "?" : 1)
      assert.deepStrictEqual((yield* renewAll(["a", "b"])).map((exit) => isRenewed(exit)), [true, true])
    }))

  it.effect("do not wait for one another when they may not wait as long", () =>
    Effect.gen(function*() {
      const { begin, renew, sent } = yield* setup(() => 1)
      yield* Effect.all([renew(begin("a")), renew(begin("b", Duration.seconds(1)))], { concurrency: "unbounded" })
      assert.deepStrictEqual(sent.map((args) => args[1]), ["1", "1"])
    }))
})
