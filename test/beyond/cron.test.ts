/**
 * The recipe of core's README: a job on a schedule, once per tick, on three processes whose clocks differ. Eight ticks, or
 * as many as `DLOCK_TEST_SECONDS` says.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { redis } from "../harness/RedisServer.ts"
import { start } from "./children.ts"

const ticks = Number(process.env["DLOCK_TEST_SECONDS"] ?? "8")

const second = (line: string) => Math.floor(Number(line.split(" ")[1]) / 1000)

it.live("a job on three processes runs once per tick", () =>
  Effect.gen(function*() {
    const { addr } = yield* redis()
    const children = yield* Effect.forEach([0, 30, 80], (behind) => start("cron", addr, "job", `${behind}`))
    const ready = yield* Effect.forEach(children, ({ until }) => until("ready"))
    // The tick in which the last one became ready is not all of theirs, nor is the one that may be under way at the end.
    const first = Math.max(...ready.map(second)) + 2
    yield* Effect.sleep((ticks + 2.9) * 1000)
    const counts = new Map<number, number>()
    for (const tick of children.flatMap(({ lines }) => lines.filter((line) => line.startsWith("ran")).map(second))) {
      counts.set(tick, (counts.get(tick) ?? 0) + 1)
    }
    const seen = Array.from({ length: ticks }, (_, i) => counts.get(first + i) ?? 0)
    assert.deepStrictEqual(seen, Array.from({ length: ticks }, () => 1))
  }), (ticks + 30) * 1000)
