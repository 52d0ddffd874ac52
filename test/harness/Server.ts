/**
 * A real server for tests: a process on a free port of 127.0.0.1 with a folder of its own.
 */
import { Clock, Effect, Exit, Schedule, Scope, Semaphore } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { addressIn } from "./Catalog.ts"
import { HarnessError } from "./HarnessError.ts"
import { host } from "./Port.ts"
import type { NoAnswer } from "./Probe.ts"
import * as Process from "./Process.ts"
import type * as Program from "./Program.ts"

/**
 * A server and the faults that can be done to it.
 */
export interface Server {
  readonly host: string
  readonly port: number
  /** `host:port` */
  readonly addr: string
  /** Sends SIGKILL; returns when the process is gone. Its data stay. */
  readonly kill: Effect.Effect<void>
  /** Sends SIGSTOP: connections stay open, nothing is answered. */
  readonly pause: Effect.Effect<void>
  /** Sends SIGCONT. */
  readonly resume: Effect.Effect<void>
  /** Starts it again after `kill`: same port, same data. Returns when it answers; does nothing while it runs. */
  readonly start: Effect.Effect<void, HarnessError>
  /** Forgets the data, after `kill`. */
  readonly wipe: Effect.Effect<void, HarnessError>
  /** Asks it one question that only a server at work answers. */
  readonly probe: Effect.Effect<unknown, NoAnswer>
  /** The last lines that it wrote. */
  readonly log: Effect.Effect<string>
}

/** What is particular to one kind of server. */
export interface Recipe {
  /** What people call it: it names the folder and every error. */
  readonly name: string
  readonly program: Program.Program
  /** What it listens on; the first is told to clients. */
  readonly ports: readonly [number, ...ReadonlyArray<number>]
  /** Whether it talks to other servers of the harness. */
  readonly inGroup?: boolean | undefined
  /** Fills a fresh folder, before the first start and after every `wipe`. */
  readonly prepare?: ((folder: string) => Effect.Effect<void, HarnessError>) | undefined
  /** The command line, given its folder and the address to listen on. */
  readonly command: (folder: string, bind: string) => ReadonlyArray<string>
  /** One question that only a server at work answers. */
  readonly probe: Effect.Effect<unknown, NoAnswer>
}

const probeInterval = "20 millis"
const startLimit = "45 seconds"

/** The harness waits in real time, also in a test whose clock is virtual. */
const inRealTime = Effect.provideService(Clock.Clock, Clock.Clock.defaultValue())

/**
 * Asks again and again until it is answered.
 */
export const untilAnswered = <A>(
  server: string,
  probe: Effect.Effect<A, NoAnswer>,
  log: () => string = () => ""
): Effect.Effect<A, HarnessError> =>
  probe.pipe(
    Effect.retry(Schedule.spaced(probeInterval)),
    Effect.orDie,
    Effect.timeoutOrElse({
      duration: startLimit,
      orElse: () => new HarnessError({ server, problem: `not ready within ${startLimit}\n${log()}` })
    }),
    inRealTime
  )

const untilReady = (recipe: Recipe, folder: string, process: Process.Process) => {
  const log = () => Process.tail(folder)
  const died = Effect.flatMap(process.exit, (code) =>
    new HarnessError({
      server: recipe.name,
      problem: `ended with ${code} instead of starting:\n${log()}`,
      ...(/address already in use/i.test(log()) && { addressInUse: true })
    }))
  return Effect.raceFirst(untilAnswered(recipe.name, recipe.probe, log), died)
}

const dataFolder = (server: string, folder: string) =>
  Effect.try({
    try: () => {
      const path = Path.join(folder, "data")
      Fs.rmSync(path, { recursive: true, force: true })
      Fs.mkdirSync(path)
    },
    catch: (cause) => new HarnessError({ server, problem: `no folder for its data: ${String(cause)}` })
  })

/**
 * Starts a server; it is killed and forgotten when the scope closes.
 */
export const make = Effect.fnUntraced(function*(recipe: Recipe): Effect.fn.Return<Server, HarnessError, Scope.Scope> {
  const folder = yield* Effect.acquireRelease(Process.makeFolder(recipe.name), Process.removeFolder)
  const [port] = recipe.ports
  const oneAtATime = Semaphore.makeUnsafe(1).withPermit
  let process: Process.Process | undefined
  let prepared = false

  const isRunning = Effect.suspend(() => process?.isRunning ?? Effect.succeed(false))
  const kill = Effect.suspend(() => process?.kill ?? Effect.void).pipe(Effect.uninterruptible)

  const start = Effect.gen(function*() {
    if (yield* isRunning) return
    if (!prepared) {
      yield* dataFolder(recipe.name, folder)
      yield* recipe.prepare?.(folder) ?? Effect.void
      prepared = true
    }
    process = yield* recipe.program.launch({
      folder,
      command: (bind) => recipe.command(folder, bind),
      ports: recipe.ports,
      inGroup: recipe.inGroup
    })
    yield* untilReady(recipe, folder, process)
  }).pipe(Effect.onError(() => kill))

  const wipe = Effect.gen(function*() {
    if (yield* isRunning) return yield* new HarnessError({ server: recipe.name, problem: "wipe: kill it first" })
    prepared = false
  })

  yield* Effect.addFinalizer(() => kill)
  yield* start
  return {
    host,
    port,
    addr: `${host}:${port}`,
    kill: oneAtATime(kill),
    pause: Effect.suspend(() => process?.pause ?? Effect.void),
    resume: Effect.suspend(() => process?.resume ?? Effect.void),
    start: oneAtATime(start),
    wipe: oneAtATime(wipe),
    probe: recipe.probe,
    log: Effect.sync(() => Process.tail(folder))
  }
})

/**
 * Builds servers once more, on other ports, when somebody else took one of theirs before they could.
 */
export const onFreePorts = <A>(
  make: Effect.Effect<A, HarnessError, Scope.Scope>
): Effect.Effect<A, HarnessError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const scope = yield* Scope.fork(yield* Effect.scope)
      return yield* restore(Scope.provide(make, scope)).pipe(
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
    })
  ).pipe(Effect.retry({ times: 2, while: (error) => error.addressInUse === true }))

/**
 * The server that an environment variable names (`host:port`), if it is set. It is not ours: faults done to it die
 * with a `HarnessError`.
 */
export const given = (variable: string): Server | undefined => {
  const addr = addressIn(variable)
  if (addr === undefined) return undefined
  const { hostname, port } = new URL(`tcp://${addr}`)
  const refuse = new HarnessError({
    server: addr,
    problem: `faults can only be done to a server that the harness starts; unset ${variable}`
  })
  return {
    host: hostname.replace(/^\[|\]$/g, ""),
    port: Number(port),
    addr,
    kill: Effect.die(refuse),
    pause: Effect.die(refuse),
    resume: Effect.die(refuse),
    start: Effect.fail(refuse),
    wipe: Effect.fail(refuse),
    probe: Effect.void,
    log: Effect.succeed("")
  }
}
