/**
 * The program `dlock` in real processes, over real servers.
 */
import { type Inspection, Lock } from "@dlock/core"
import { EtcdLock } from "@dlock/etcd"
import { MysqlLock } from "@dlock/mysql"
import { RedisLock } from "@dlock/redis"
import { assert } from "@effect/vitest"
import { Effect, Layer, Schedule, type Scope } from "effect"
import * as ChildProcess from "node:child_process"
import { fileURLToPath } from "node:url"
import { bundled } from "../harness/Bundle.ts"
import { etcd } from "../harness/EtcdServer.ts"
import type { HarnessError } from "../harness/HarnessError.ts"
import { mariadb } from "../harness/MysqlServer.ts"
import * as Process from "../harness/Process.ts"
import { redis } from "../harness/RedisServer.ts"
import type { Server } from "../harness/Server.ts"

const file = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))

/** The Node of the repository. */
const node = file("node_modules/.bin/node")

/** Each test starts several programs, which takes a busy machine seconds for each. */
export const patience = { timeout: 400_000 }

/** Where the program finds its server, and a lock of our own to look at it. */
export interface Place {
  readonly server: Server
  readonly env: Readonly<Record<string, string>>
  readonly inspect: (key: string) => Effect.Effect<Inspection>
}

export interface Backend {
  readonly name: string
  readonly revokes: boolean
  readonly place: Effect.Effect<Place, HarnessError, Scope.Scope>
}

const inspecting = <E>(layer: Layer.Layer<Lock, E>) =>
  Effect.map(
    Effect.orDie(Effect.flatMap(Layer.build(layer), (context) => Effect.provideContext(Lock, context))),
    (lock) => (key: string) => Effect.orDie(lock.inspect(key))
  )

/** The three whose ways to hold differ most: a key with an expiry, a lease, a connection. */
export const backends: ReadonlyArray<Backend> = [
  {
    name: "redis",
    revokes: true,
    place: Effect.gen(function*() {
      const server = yield* redis()
      const inspect = yield* inspecting(RedisLock.layer({ addrs: [server.addr] }))
      return { server, env: { DLOCK_REDIS_ENABLED: "true", DLOCK_REDIS_ADDRS: server.addr }, inspect }
    })
  },
  {
    name: "etcd",
    revokes: true,
    place: Effect.gen(function*() {
      const server = yield* etcd()
      const inspect = yield* inspecting(EtcdLock.layer({ endpoints: [server.addr] }))
      return { server, env: { DLOCK_ETCD_ENABLED: "true", DLOCK_ETCD_ENDPOINTS: server.addr }, inspect }
    })
  },
  {
    name: "mysql",
    revokes: false,
    place: Effect.gen(function*() {
      const server = yield* mariadb()
      const { database, host, password, port, username } = server
      const inspect = yield* inspecting(MysqlLock.layer({ username, password, host, port, database }))
      const url = `mysql://${username}:${password}@${host}:${port}/${database}`
      return { server, env: { DLOCK_MYSQL_ENABLED: "true", DLOCK_MYSQL_URL: url }, inspect }
    })
  }
]

/** A running `dlock`. */
export interface Dlock {
  readonly pid: number
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Writes to its standard input. */
  readonly write: (text: string | Buffer) => Effect.Effect<void>
  readonly endInput: Effect.Effect<void>
  /** Waits for a line of its standard output that begins so, and answers with the rest of it. */
  readonly line: (start: string) => Effect.Effect<string>
  /** Waits until it has ended. */
  readonly exit: Effect.Effect<number | NodeJS.Signals>
  /** Waits until it and everything that it started have ended: standard output is closed. */
  readonly closed: Effect.Effect<void>
  readonly stdout: () => Buffer
  readonly stderr: () => string
}

const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("DLOCK_")))

const collect = (stream: NodeJS.ReadableStream, changed: () => void) => {
  const chunks: Array<Buffer> = []
  stream.on("data", (chunk: Buffer) => {
    chunks.push(chunk)
    changed()
  })
  return () => Buffer.concat(chunks)
}

const fromChild = (child: ChildProcess.ChildProcessWithoutNullStreams): Dlock => {
  const waiting = new Set<() => void>()
  const changed = () => {
    for (const look of waiting) look()
  }
  const stdout = collect(child.stdout, changed)
  const stderr = collect(child.stderr, changed)
  let closed = false
  child.stdin.on("error", () => {})
  child.on("exit", changed)
  child.on("close", () => {
    closed = true
    changed()
  })
  const when = <A>(value: () => A | undefined): Effect.Effect<A> =>
    Effect.callback((resume) => {
      const look = () => {
        const found = value()
        if (found === undefined) return
        waiting.delete(look)
        resume(Effect.succeed(found))
      }
      waiting.add(look)
      look()
      return Effect.sync(() => waiting.delete(look))
    })
  const line = (start: string) =>
    Effect.map(
      when(() => {
        const lines = stdout().toString().split("\n").slice(0, -1)
        return lines.find((line) => line.startsWith(start)) ??
          (closed
            ? `${start}${String(new Error(`no line ${start}; standard error: ${stderr().toString()}`))}`
            : undefined)
      }),
      (found) => found.slice(start.length).trim()
    )
  return {
    pid: child.pid ?? 0,
    signal: (signal) => Effect.sync(() => child.kill(signal)),
    write: (text) => Effect.sync(() => child.stdin.write(text)),
    endInput: Effect.sync(() => child.stdin.end()),
    line,
    exit: when(() => child.exitCode ?? child.signalCode ?? undefined),
    closed: Effect.asVoid(when(() => closed ? true : undefined)),
    stdout,
    stderr: () => stderr().toString()
  }
}

const start = (
  main: string,
  env: Readonly<Record<string, string>>,
  args: ReadonlyArray<string>
): Effect.Effect<Dlock, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        ChildProcess.spawn(node, [main, ...args], {
          cwd: Process.rootFolder(),
          env: { ...own, ...env },
          stdio: "pipe"
        })
      ),
      (child) =>
        Effect.sync(() => {
          if (child.exitCode === null) child.kill("SIGKILL")
        })
    ),
    fromChild
  )

/** Starts `dlock`, in a folder without configuration; it is killed with the scope, and what it runs with it. */
export const dlock = (
  env: Readonly<Record<string, string>>,
  ...args: ReadonlyArray<string>
): Effect.Effect<Dlock, never, Scope.Scope> => start(bundled("dlock"), env, args)

/** How a program ended. */
export interface Ended {
  readonly code: number | NodeJS.Signals
  readonly stdout: string
  readonly stderr: string
}

export const ended = (program: Dlock): Effect.Effect<Ended> =>
  Effect.gen(function*() {
    yield* program.closed
    return { code: yield* program.exit, stdout: program.stdout().toString(), stderr: program.stderr() }
  })

/** Runs `dlock` to its end. */
export const dlockEnds = (
  env: Readonly<Record<string, string>>,
  ...args: ReadonlyArray<string>
): Effect.Effect<Ended> => Effect.scoped(Effect.flatMap(dlock(env, ...args), ended))

/** The same from its sources, which load packages by their names. */
export const sourceEnds = (
  env: Readonly<Record<string, string>>,
  ...args: ReadonlyArray<string>
): Effect.Effect<Ended> => Effect.scoped(Effect.flatMap(start(file("packages/cli/src/main.ts"), env, args), ended))

/** It ended with this code, one line on standard error, and nothing on standard output but what its command wrote. */
export const assertFailure = (
  { code, stderr, stdout }: Ended,
  expected: number,
  line: RegExp,
  output = ""
): void => {
  assert.deepStrictEqual([code, stdout], [expected, output], stderr)
  assert.match(stderr, /^dlock: [^\n]+\n$/, "one line on standard error")
  assert.match(stderr, line)
}

const again = Schedule.spaced("20 millis")

/** Waits until what is seen of the key is so. */
export const seen = (
  { inspect }: Place,
  key: string,
  is: (inspection: { readonly isHeld: boolean, readonly waiting: number }) => boolean
): Effect.Effect<void> =>
  Effect.asVoid(Effect.repeat(
    Effect.map(inspect(key), ({ holder, waiting }) =>
      is({ isHeld: holder._tag === "Some", waiting: typeof waiting === "number" ? waiting : waiting.length })),
    {
      schedule: again,
      until: (so) =>
        so
    }
  ))

/** Shell: says `in` with its process and its owner, `term` at SIGTERM, and then ends with 5. */
export const polite = "trap 'echo term; exit 5' TERM; echo \"in $$ $DLOCK_OWNER\"; sleep 1000 & wait"

/** Shell: says `in` and `term`, and does not end. */
export const stubborn = "trap 'echo term' TERM; echo \"in $$ $DLOCK_OWNER\"; while :; do sleep 1000 & wait; done"
