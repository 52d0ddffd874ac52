/**
 * What is called in one turn goes out together.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Option } from "effect"
import * as RedisAttempts from "../src/internal/RedisAttempts.ts"
import * as RedisScripts from "../src/internal/RedisScripts.ts"
import * as RedisVerbs from "../src/internal/RedisVerbs.ts"
import * as support from "./support.ts"
import { type Outcome, refusal, type Sent } from "./support.ts"

const scripts = RedisScripts.make(true)

const setup = (answer: (sent: Sent, index: number) => Outcome, isCluster = false) => {
  const { connection, sent } = support.setup(answer)
  const attempts = RedisAttempts.make("", Duration.seconds(5))
  return {
    sent,
    verbs: RedisVerbs.make(connection, scripts, { isCluster, channel: "c", clockAhead: 0 }),
    begin: (key: string, ttl: Duration.Input = "30 seconds") =>
      attempts.of({ key, owner: `${key}-owner`, ttl: Duration.fromInputUnsafe(ttl), onLost: () => {} })
  }
}

const together = <A, B, E>(items: ReadonlyArray<A>, effect: (item: A) => Effect.Effect<B, E>) =>
  Effect.forEach(items, (item) => Effect.exit(effect(item)), { concurrency: "unbounded" })

const isRenewed = <A, E>(exit: Exit.Exit<Option.Option<A>, E>) =>
  Exit.match(exit, { onSuccess: (answer) => Option.isSome(answer), onFailure: () => undefined })

const noperm = refusal("NOPERM No permissions to access a key")

describe("calls of one turn", () => {
  it.live("are one command, and everybody gets the own answer", () =>
    Effect.gen(function*() {
      const { begin, sent, verbs } = setup(() => ({ reply: [1, 0, 1] }))
      const exits = yield* together(["a", "b", "c"], (key) => verbs.renew(begin(key)))
      assert.deepStrictEqual(exits.map((exit) => isRenewed(exit)), [true, false, true])
      assert.deepStrictEqual(sent.map(({ args }) => args), [
        [scripts.renew.sha1, "3", "a", "b", "c", "a-owner", "30000", "b-owner", "30000", "c-owner", "30000"]
      ])
    }))

  it.live("that ask for keys, too, and have the fence in common", () =>
    Effect.gen(function*() {
      const { begin, sent, verbs } = setup(() => ({ reply: ["7", "8", 7] }))
      const exits = yield* together(["a", "b"], (key) => verbs.take(begin(key)))
      const tokens = exits.map((exit) =>
        Exit.isSuccess(exit) && exit.value._tag === "Granted" ? exit.value.grant.fencingToken : undefined
      )
      assert.deepStrictEqual(tokens, [7n, 8n])
      const keys = ["a", "b"].flatMap((
        key
      ) => [key, `{${key}}:dlock-line`, `{${key}}:dlock-waiters`, `{${key}}:dlock-void`])
      assert.deepStrictEqual(sent[0]?.args.slice(1, 11), ["9", ":dlock-fence", ...keys])
    }))

  it.live("are in commands of a hundred, so that nobody else waits for long", () =>
    Effect.gen(function*() {
      const { begin, sent, verbs } = setup(({ args }) => ({ reply: Array.from({ length: Number(args[1]) }, () => 1) }))
      const exits = yield* together(Array.from({ length: 250 }, (_, i) => `k${i}`), (key) => verbs.renew(begin(key)))
      assert.isTrue(exits.every((exit) => isRenewed(exit) === true))
      assert.deepStrictEqual(sent.map(({ args }) => args[1]), ["100", "100", "50"])
    }))

  it.live("are made one by one when the server refuses them together", () =>
    Effect.gen(function*() {
      const { begin, sent, verbs } = setup(({ args }, i) => i === 0 || args[2] === "b" ? noperm : { reply: [1] })
      const exits = yield* together(["a", "b", "c"], (key) => verbs.renew(begin(key)))
      assert.deepStrictEqual(exits.map((exit) => isRenewed(exit)), [true, undefined, true])
      assert.strictEqual(sent.length, 4)
    }))

  it.live("are sent whole to a server that does not have the script, in the same order", () =>
    Effect.gen(function*() {
      const { begin, sent, verbs } = setup((_, i) => i === 0 ? refusal("NOSCRIPT") : { reply: [1, 0] })
      const exits = yield* together(["a", "b"], (key) => verbs.renew(begin(key)))
      assert.deepStrictEqual(exits.map((exit) => isRenewed(exit)), [true, false])
      assert.deepStrictEqual(sent.map(({ command }) => command), ["evalsha", "eval"])
    }))

  it.live("give back before they ask: the next in the local line finds the key free", () =>
    Effect.gen(function*() {
      const { begin, sent, verbs } = setup(({ args }) => ({ reply: args[0] === scripts.release.sha1 ? 1 : "7" }))
      const verb = (i: number) => i === 0 ? verbs.take(begin("next")) : verbs.giveBack(begin("now"))
      yield* together<number, unknown, unknown>([0, 1], verb)
      assert.deepStrictEqual(sent.map(({ args }) => args[0]), [scripts.release.sha1, scripts.acquire.sha1])
    }))

  it.live("go out one by one in a cluster, each with the fence of its slot", () =>
    Effect.gen(function*() {
      const { begin, sent, verbs } = setup(() => ({ reply: "7" }), true)
      yield* together(["a", "b"], (key) => verbs.take(begin(key)))
      assert.deepStrictEqual(sent.map(({ args }) => args[1]), ["5", "5"])
      assert.notStrictEqual(sent[0]?.args[2], sent[1]?.args[2])
    }))
})
