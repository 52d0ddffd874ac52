/**
 * `demo`: sells the tickets of a concert twice, without a lock and with one.
 */
import { MemoryLock } from "@dlock/core"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import {
  ConfigProvider,
  Console,
  Data,
  Duration,
  Effect,
  FileSystem,
  Layer,
  Option,
  Path,
  Schema,
  Stream
} from "effect"
import { Command, Flag } from "effect/cli"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as process from "node:process"
import * as backends from "./backends.ts"
import { isExact, makeCounter, type Result, table } from "./report.ts"
import { inMemory, locked, type Sale, sellOut, withoutLock } from "./ticketSale.ts"

const tickets = 200
const processes = 4
const clerks = 4

/** The sale was not what it should be; the message is for people. */
class DemoError extends Data.TaggedError("DemoError")<{ readonly message: string }> {}

type OnSale = (sale: Sale) => Effect.Effect<void>

const run = Effect.fnUntraced(function*<E, R>(title: string, sale: (onSale: OnSale) => Effect.Effect<void, E, R>) {
  const counter = yield* makeCounter(title, tickets)
  const [duration] = yield* Effect.timed(sale(counter.onSale))
  yield* counter.done
  return { tickets, sales: yield* counter.sales, millis: Duration.toMillis(duration) } satisfies Result
})

/** Every clerk a fiber of this process, over the embedded backend. */
const inOneProcess = Effect.gen(function*() {
  const all = processes * clerks
  yield* Console.log(`${all} clerks sell ${tickets} tickets, all in this process, over the memory backend.`)
  yield* Console.log("Each sale reads how many are left, takes the money, and writes one less.\n")
  const open = yield* inMemory(tickets)
  const without = yield* run("without a lock", (onSale) => sellOut(all, withoutLock(open), onSale))
  const guarded = yield* inMemory(tickets)
  const withLock = yield* run("with withLock", (onSale) => sellOut(all, locked(guarded), onSale)).pipe(
    Effect.provide(MemoryLock.layer)
  )
  return [without, withLock] as const
})

const SaleLine = Schema.fromJsonString(
  Schema.Struct({ ticket: Schema.Number, waited: Schema.Number, fencingToken: Schema.BigIntFromString })
)

/** One process of clerks, and what it sells. */
const clerksProcess = Effect.fnUntraced(function*(env: Record<string, string>, onSale: OnSale) {
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const main = yield* path.fromFileUrl(new URL("./clerks.ts", import.meta.url))
  const child = yield* spawner.spawn(ChildProcess.make(process.execPath, [main], {
    env: { ...env, CLERKS: String(clerks) },
    extendEnv: true,
    stderr: "inherit"
  }))
  yield* child.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.mapEffect((line) => Schema.decodeUnknownEffect(SaleLine)(line)),
    Stream.runForEach(onSale)
  )
  const code = yield* child.exitCode
  if (code !== 0) return yield* new DemoError({ message: `a process of clerks ended with code ${code}` })
}, Effect.scoped)

/** Several processes of clerks, over a server; the tickets left are in a file. */
const overServer = Effect.fnUntraced(function*(name: backends.ServerName, addrs: string | undefined) {
  const files = yield* FileSystem.FileSystem
  const folder = yield* files.makeTempDirectoryScoped({ prefix: "dlock-demo-" })
  const path = yield* Path.Path
  const env = backends.environment(name, addrs)
  // Before anything is sold: is the server there?
  yield* Effect.scoped(Layer.build(backends.layer(name))).pipe(
    Effect.provideService(
      ConfigProvider.ConfigProvider,
      ConfigProvider.fromEnvRecord({ ...process.env, ...env })
    )
  )
  const sale = (file: string, env: Record<string, string>) => (onSale: OnSale) =>
    Effect.gen(function*() {
      const TICKETS = path.join(folder, file)
      yield* files.writeFileString(TICKETS, String(tickets))
      yield* Effect.forEach(
        Array.from({ length: processes }),
        () => clerksProcess({ ...env, TICKETS }, onSale),
        { concurrency: "unbounded", discard: true }
      )
    })
  yield* Console.log(`${processes} processes of ${clerks} clerks sell ${tickets} tickets, over ${name}.`)
  yield* Console.log("Each sale reads from a file how many are left, takes the money, and writes one less.\n")
  const without = yield* run("without a lock", sale("open", {}))
  const withLock = yield* run("with withLock", sale("guarded", { ...env, BACKEND: name }))
  return [without, withLock] as const
}, Effect.scoped)

const command = Command.make(
  "demo",
  {
    backend: Flag.Literals("backend", ["memory", ...backends.serverNames]).pipe(
      Flag.withDescription("Where the lock is kept. Default: the one that the configuration enables, else memory"),
      Flag.optional
    ),
    addrs: Flag.String("addrs").pipe(
      Flag.withDescription("Addresses of the server, host:port, comma separated"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function*(flags) {
    const backend = Option.getOrUndefined(flags.backend) ?? (yield* backends.configured) ?? "memory"
    const addrs = Option.getOrUndefined(flags.addrs)
    if (backend === "memory" && addrs !== undefined) {
      return yield* new DemoError({ message: "--addrs needs a --backend that is a server" })
    }
    const [without, withLock] = yield* backend === "memory" ? inOneProcess : overServer(backend, addrs)
    yield* Console.log(`\n${table(without, withLock)}\n`)
    if (!isExact(withLock)) return yield* new DemoError({ message: "the sale with the lock was not exact" })
    yield* Console.log("With the lock each ticket was sold once, under a fencing token greater than the one before.")
  })
).pipe(
  Command.withDescription("Sells the tickets of a concert twice: without a lock, and with one")
)

Command.run(command, { version: "0.1.0" }).pipe(
  // A wrong flag has been told by the command itself.
  Effect.tapError((error) => error._tag === "ShowHelp" ? Effect.void : Console.error(`demo: ${error.message}`)),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain({ disableErrorReporting: true })
)
