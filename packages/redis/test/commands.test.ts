/**
 * What is called in one turn is written together; renewals are one command.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option } from "effect"
import * as attempts from "../src/internal/attempts.ts"
import * as requests from "../src/internal/requests.ts"
import * as scripts from "../src/internal/scripts.ts"
import * as support from "./support.ts"
import { type Outcome, refusal, type Sent } from "./support.ts"

const all = scripts.make(true)

const begin = (key: string) => attempts.make(support.requestOf(key, `${key}-owner`), "", 5000)

const setup = (answer: (sent: Sent, index: number) => Outcome, isCluster = false) => {
  const { connection, sent } = support.setup(answer, isCluster)
  const means = { connection, scripts: all, channel: "c", limit: 5000, clockAhead: 0 }
  return {
    sent,
    take: (key: string) => requests.take(means, begin(key)),
    renew: (key: string) => requests.renew(means, begin(key)),
    release: (key: string) => requests.release(means, begin(key))
  }
}

const together = <A, B, E>(items: ReadonlyArray<A>, effect: (item: A) => Effect.Effect<B, E>) =>
  Effect.forEach(items, (item) => Effect.exit(effect(item)), { concurrency: "unbounded" })

const isRenewed = <A, E>(exit: Exit.Exit<Option.Option<A>, E>) =>
  Exit.match(exit, { onSuccess: (answer) => Option.isSome(answer), onFailure: () => undefined })

const noperm = refusal("NOPERM No permissions to access a key")

describe("calls of one turn", () => {
  it.live("to renew are one command, and each gets its own answer", () =>
    Effect.gen(function*() {
      const { renew, sent } = setup(() => ({ reply: ["ours", "gone", "ours"] }))
      const exits = yield* together(["a", "b", "c"], renew)
      assert.deepStrictEqual(exits.map((exit) => isRenewed(exit)), [true, false, true])
      assert.deepStrictEqual(sent.map(({ args }) => args), [
        [all.renew.sha1, "3", "a", "b", "c", "a-owner", "30000", "b-owner", "30000", "c-owner", "30000"]
      ])
    }))

  it.live("are in commands of a hundred, so that no other client waits for long", () =>
    Effect.gen(function*() {
      const { renew, sent } = setup(({ args }) => ({ reply: Array.from({ length: Number(args[1]) }, () => "ours") }))
      const exits = yield* together(Array.from({ length: 250 }, (_, i) => `k${i}`), renew)
      assert.isTrue(exits.every((exit) => isRenewed(exit) === true))
      assert.deepStrictEqual(sent.map(({ args }) => args[1]), ["100", "100", "50"])
    }))

  it.live("are made one by one when the server refuses them together", () =>
    Effect.gen(function*() {
      const { renew, sent } = setup(({ args }, i) => i === 0 || args[2] === "b" ? noperm : { reply: ["ours"] })
      const exits = yield* together(["a", "b", "c"], renew)
      assert.deepStrictEqual(exits.map((exit) => isRenewed(exit)), [true, undefined, true])
      assert.strictEqual(sent.length, 4)
    }))

  it.live("are sent whole to a server that does not have the script, in the same order", () =>
    Effect.gen(function*() {
      const { renew, sent } = setup((_, i) => i === 0 ? refusal("NOSCRIPT") : { reply: ["ours", "gone"] })
      const exits = yield* together(["a", "b"], renew)
      assert.deepStrictEqual(exits.map((exit) => isRenewed(exit)), [true, false])
      assert.deepStrictEqual(sent.map(({ command }) => command), ["evalsha", "eval"])
    }))

  it.live("release before they ask: the next in the local line finds the key free", () =>
    Effect.gen(function*() {
      const { release, sent, take } = setup(({ args }) => ({
        reply: args[0] === all.release.sha1 ? "released" : "granted 7 0"
      }))
      const verb = (i: number) => i === 0 ? take("next") : release("now")
      yield* together<number, unknown, unknown>([0, 1], verb)
      assert.deepStrictEqual(sent.map(({ args }) => args[0]), [all.release.sha1, all.acquire.sha1])
    }))

  it.live("go out one by one in a cluster", () =>
    Effect.gen(function*() {
      const { renew, sent } = setup(() => ({ reply: ["ours"] }), true)
      yield* together(["a", "b"], renew)
      assert.deepStrictEqual(sent.map(({ args }) => args[1]), ["1", "1"])
    }))

  it.live("that ask for keys are a command each, in a cluster with the fence of its slot", () =>
    Effect.gen(function*() {
      for (const isCluster of [false, true]) {
        const { sent, take } = setup(() => ({ reply: "granted 7 0" }), isCluster)
        yield* together(["a", "b"], take)
        assert.deepStrictEqual(sent.map(({ args }) => args[1]), ["6", "6"])
        assert.strictEqual(sent[0]?.args[2] === sent[1]?.args[2], !isCluster)
      }
    }))
})
