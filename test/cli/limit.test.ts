import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { assertFailure, backends, type Dlock, dlock, dlockEnds, ended, patience, seen } from "./support.ts"

const redis = backends.filter(({ name }) => name === "redis")

const command = "echo \"in $DLOCK_PERMIT $DLOCK_FENCING_TOKEN $DLOCK_KEY\"; read -r word; echo \"out $word\""

const permitOf = (program: Dlock) =>
  Effect.map(program.line("in "), (line) => {
    const [permit = "", token = "", key] = line.split(" ")
    assert.strictEqual(key, "k", "the key is the one that was asked for")
    return { permit, token: BigInt(token) }
  })

describe.each(redis)("dlock run --limit over $name", patience, ({ place }) => {
  it.live("two run at a time, and the third waits", () =>
    Effect.gen(function*() {
      const at = yield* place
      const run = dlock(at.env, "run", "--limit", "2", "k", "--", "sh", "-c", command)
      const [first, second] = [yield* run, yield* run]
      const [one, other] = [yield* permitOf(first), yield* permitOf(second)]
      assert.deepStrictEqual([one.permit, other.permit].toSorted(), ["0", "1"])
      const third = yield* run
      yield* seen(at, "k#permits", ({ isHeld }) => isHeld)
      const busy = yield* dlockEnds(at.env, "run", "--limit", "2", "--if-available", "k", "--", "echo", "ran")
      assertFailure(busy, 75, /another owner holds it/)
      const late = yield* dlockEnds(at.env, "run", "--limit", "2", "--timeout", "200ms", "k", "--", "echo", "ran")
      assertFailure(late, 75, /Lock "k".*timed out/)
      assert.strictEqual(third.stdout().toString(), "", "the third does not run while two others do")
      yield* first.write("one\n")
      assert.strictEqual((yield* ended(first)).code, 0)
      const next = yield* permitOf(third)
      assert.strictEqual(next.permit, one.permit, "it gets the permit that was released")
      assert.isTrue(next.token > one.token, "with a greater token")
      for (const program of [second, third]) {
        yield* program.write("more\n")
        const { code, stderr } = yield* ended(program)
        assert.deepStrictEqual([code, stderr], [0, ""])
      }
      for (const name of ["permits", "permit-0", "permit-1"]) yield* seen(at, `k#${name}`, ({ isHeld }) => !isHeld)
    }))

  it.live("refuses an invalid limit with 64, and its command does not run", () =>
    Effect.gen(function*() {
      const at = yield* place
      const run = (...options: ReadonlyArray<string>) => dlockEnds(at.env, "run", ...options, "k", "--", "echo", "ran")
      assertFailure(yield* run("--limit", "0"), 64, /the limit must be a whole number from 1 to 64/)
      assertFailure(yield* run("--limit", "2", "--min-hold", "1s"), 64, /--min-hold does not go with --limit/)
    }))
})
