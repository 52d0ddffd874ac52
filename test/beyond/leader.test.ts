/**
 * Leaders in processes of their own.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { redis } from "../harness/RedisServer.ts"
import { start } from "./children.ts"

it.live("SIGTERM hands over at once, long before the ttl of 30 seconds", () =>
  Effect.gen(function*() {
    const { addr } = yield* redis()
    const first = yield* start("leads", addr, "job")
    const token = yield* first.until("leads")
    const others = yield* Effect.forEach([1, 2], () => start("leads", addr, "job"))
    yield* Effect.forEach(others, ({ until }) => until("asks"))
    yield* Effect.sleep("1 second")
    yield* first.send("SIGTERM")
    const next = yield* Effect.timeout(Effect.raceAllFirst(others.map(({ until }) => until("leads"))), "10 seconds")
    assert.isTrue(BigInt(next.split(" ")[1] ?? "") > BigInt(token.split(" ")[1] ?? ""))
    assert.deepStrictEqual(first.lines.slice(2), ["stops"])
    assert.strictEqual(others.flatMap(({ lines }) => lines).length, 3, "one of the others leads")
  }))
