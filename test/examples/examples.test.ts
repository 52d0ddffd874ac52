/**
 * The programs of `examples/`: in processes of their own, configured by their environment.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import { type Child, startWith } from "../beyond/children.ts"
import { bundled } from "../harness/Bundle.ts"
import { mariadb } from "../harness/MysqlServer.ts"
import { reserve } from "../harness/Port.ts"
import { postgres } from "../harness/PostgresServer.ts"
import { redis } from "../harness/RedisServer.ts"
import { until } from "../requests.ts"

/** Each starts several programs, which takes a busy machine seconds for each. */
const patience = 180_000

/** As it is: it is plain JavaScript. */
const plain = fileURLToPath(new URL("../../examples/src/plain.mjs", import.meta.url))

const printed = (children: ReadonlyArray<Child>, start: string) =>
  children.flatMap(({ lines }) => lines).filter((line) => line.startsWith(start))

const post = (port: number, path: string) =>
  Effect.promise(async () => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST" })
    return { status: response.status, text: await response.text() }
  })

/** A request that arrives after the server listens and before it has its routes is never answered. */
const answers = (port: number) =>
  Effect.promise(() =>
    fetch(`http://127.0.0.1:${port}`, { signal: AbortSignal.timeout(2000) }).then(() => true, () => false)
  )

describe("examples", () => {
  it.live("orders: many requests at two processes charge an order once", () =>
    Effect.gen(function*() {
      const { url } = yield* postgres()
      const ports = [yield* reserve, yield* reserve]
      const services = yield* Effect.forEach(
        ports,
        (port) => startWith({ DLOCK_POSTGRES_URL: url, PORT: `${port}` }, bundled("orders"))
      )
      yield* Effect.forEach(ports, (port) => until(answers(port)))
      const responses = yield* Effect.forEach(
        Array.from({ length: 20 }, (_, i) => ports[i % 2] ?? 0),
        (port) => post(port, "/orders/42/charge"),
        { concurrency: "unbounded" }
      )
      const texts = responses.map(({ status, text }) => `${status} ${text}`).toSorted()
      assert.deepStrictEqual(texts, [...Array.from({ length: 19 }, () => "200 already charged"), "200 charged"])
      assert.deepStrictEqual(yield* post(ports[0] ?? 0, "/orders/43/charge"), { status: 200, text: "charged" })
      yield* Effect.forEach(services, ({ send }) => send("SIGTERM"))
      yield* Effect.forEach(services, ({ exit }) => exit)
    }), patience)

  it.live("nightly: one of three processes writes each report", () =>
    Effect.gen(function*() {
      const { addr } = yield* redis()
      const env = { DLOCK_REDIS_ADDRS: addr, SCHEDULE: "* * * * * *", CLOCKS_DIFFER_BY: "500 millis" }
      const children = yield* Effect.forEach([1, 2, 3], () => startWith(env, bundled("nightly")))
      yield* Effect.forEach(children, ({ until }) => until("ready"))
      yield* until(Effect.sync(() => printed(children, "report").length >= 4))
      const seconds = printed(children, "report").map((line) => Math.floor(Number(line.split(" ")[1]) / 1000))
      assert.strictEqual(new Set(seconds).size, seconds.length, "one report for each second")
      yield* Effect.forEach(children, ({ send }) => send("SIGTERM"))
      yield* Effect.forEach(children, ({ exit }) => exit)
    }), patience)

  it.live("migration: four processes run it once, and all go on", () =>
    Effect.gen(function*() {
      const { database, host, password, port, username } = yield* mariadb()
      const env = { DLOCK_MYSQL_URL: `mysql://${username}:${password}@${host}:${port}/${database}` }
      const children = yield* Effect.forEach([1, 2, 3, 4], () => startWith(env, bundled("migration")))
      const codes = yield* Effect.forEach(children, ({ exit }) => exit, { concurrency: "unbounded" })
      assert.deepStrictEqual(codes, [0, 0, 0, 0])
      assert.deepStrictEqual(printed(children, "ran"), ["ran create-orders", "ran create-charges"])
      assert.strictEqual(printed(children, "the database is ready").length, 4)
    }), patience)

  it.live("plain: two processes take turns, and SIGTERM leaves no key behind", () =>
    Effect.gen(function*() {
      const { addr } = yield* redis()
      const pair = yield* Effect.forEach([1, 2], () => startWith({ REDIS: addr }, plain))
      const codes = yield* Effect.forEach(pair, ({ exit }) => exit, { concurrency: "unbounded" })
      assert.deepStrictEqual(codes, [0, 0])
      const tokens = printed(pair, "begins").map((line) => BigInt(line.split(" ").at(-1) ?? ""))
      assert.strictEqual(new Set(tokens).size, 2, "each has a token of its own")
      assert.strictEqual(printed(pair, "ends").length, 2)

      const stopped = yield* startWith({ REDIS: addr }, plain)
      yield* stopped.until("begins")
      yield* stopped.send("SIGTERM")
      assert.strictEqual(yield* stopped.exit, 1)
      const next = yield* startWith({ REDIS: addr }, plain)
      assert.strictEqual(yield* next.exit, 0, "the key was released, or it had waited for 30 seconds in vain")
    }), patience)
})
