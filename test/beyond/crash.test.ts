/**
 * Processes that die with permits, or at the head of the line.
 */
import { withPermit } from "@dlock/core"
import { RedisLock } from "@dlock/redis"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { redis } from "../harness/RedisServer.ts"
import { start } from "./children.ts"

it.live("a holder and a head that are killed hold up the others no longer than their ttl", () =>
  Effect.gen(function*() {
    const { addr } = yield* redis()
    const holder = yield* start("permit", addr, "p", "2", "1")
    yield* holder.until("has")
    const head = yield* start("permit", addr, "p", "2", "2")
    yield* head.until("asks")
    yield* Effect.sleep("1 second")
    assert.deepStrictEqual(head.lines, ["asks"], "it waits for the holder, with one permit")
    const next = withPermit("p", { limit: 2, permits: 2 }, Effect.succeed("done"), { ttl: "3 seconds" })
    yield* head.send("SIGKILL")
    yield* holder.send("SIGKILL")
    const result = yield* Effect.timeout(Effect.provide(next, RedisLock.layer({ addrs: [addr] })), "20 seconds")
    assert.strictEqual(result, "done")
  }))
