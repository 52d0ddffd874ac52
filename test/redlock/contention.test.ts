/**
 * Sixteen contenders in four processes, while servers die and come back one after the other. Fifteen seconds of it, or
 * as many as `DLOCK_TEST_SECONDS` says.
 */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Random } from "effect"
import { spawn } from "node:child_process"
import { addrsOf, servers } from "./support.ts"

const seconds = Number(process.env["DLOCK_TEST_SECONDS"] ?? "15")
const processes = 4
const contenders = 4

interface Turn {
  readonly began: bigint
  readonly ended: bigint
  readonly token: bigint
}

/** A process of its own, and the turns that it had. */
const contend = (nodes: ReadonlyArray<string>, key: string) =>
  Effect.callback<ReadonlyArray<Turn>, string>((resume) => {
    const program = new URL("./contender.ts", import.meta.url).pathname
    const child = spawn(
      process.execPath,
      [program, nodes.join(","), key, `${contenders}`, `${seconds * 1000}`],
      { stdio: ["ignore", "pipe", "ignore"] }
    )
    let out = ""
    child.stdout.on("data", (bytes: Buffer) => {
      out += bytes.toString()
    })
    child.on("close", (code) => {
      if (code !== 0) return resume(Effect.fail(`a contender ended with ${code}`))
      // Losses are logged in between.
      const turns = Array.from(out.matchAll(/^(\d+) (\d+) (\d+)$/gm), ([, began = "", ended = "", token = ""]) => ({
        began: BigInt(began),
        ended: BigInt(ended),
        token: BigInt(token)
      }))
      resume(Effect.succeed(turns))
    })
    return Effect.sync(() => child.kill("SIGKILL"))
  })

it.live("one turn at a time, with growing tokens, while servers die and come back", () =>
  Effect.gen(function*() {
    const nodes = yield* servers(5)
    const trouble = Effect.gen(function*() {
      const { server } = nodes[yield* Random.nextIntBetween(0, 5)] ?? assert.fail()
      yield* Effect.sleep("500 millis")
      const isKilled = yield* Random.nextBoolean
      yield* isKilled ? server.kill : server.pause
      yield* Effect.sleep("700 millis")
      yield* isKilled ? server.start : server.resume
    })
    const troubles = yield* Effect.forkScoped(Effect.forever(Effect.uninterruptible(trouble)))
    const turns = (yield* Effect.forEach(
      Array.from({ length: processes }),
      () => contend(addrsOf(nodes), "contention"),
      { concurrency: "unbounded" }
    )).flat().toSorted((a, b) => Number(a.began - b.began))
    yield* Fiber.interrupt(troubles)
    assert.isAbove(turns.length, seconds * 10, "there is something to see")
    for (const [i, turn] of turns.entries()) {
      const before = turns[i - 1]
      if (before === undefined) continue
      assert.isTrue(turn.began >= before.ended, `turns ${i - 1} and ${i} of ${turns.length} do not overlap`)
      assert.isTrue(turn.token > before.token, `the token grows from turn ${i - 1} to ${i} of ${turns.length}`)
    }
    const longest = turns.reduce((gap, turn, i) => {
      const pause = Number(turn.began - (turns[i - 1]?.ended ?? turn.began)) / 1e6
      return Math.max(gap, pause)
    }, 0)
    yield* Effect.logInfo(`${turns.length} turns in ${seconds} s, the longest pause ${Math.round(longest)} ms`)
    assert.isBelow(longest, 5000, "the key never rests for longer than a few seconds")
  }), (seconds + 45) * 1000)
