/**
 * The edge to the operating system: the command in a process group of its own, its signals, and the watcher that ends the
 * group when it is no longer protected. Nothing else touches processes.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { accessSync, constants, statSync } from "node:fs"
import { constants as os } from "node:os"
import { Writable } from "node:stream"
import { fileURLToPath } from "node:url"
import { CliExit, codes } from "./exit.ts"

/** Signals that go through to the command. */
const forwarded = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT"] as const

/** What a shell makes of a signal. */
export const codeOfSignal = (signal: NodeJS.Signals): number => 128 + os.signals[signal]

const group = (pid: number | undefined, signal: NodeJS.Signals): void => {
  if (pid === undefined) return
  // The group may have ended already.
  Effect.runSync(Effect.ignore(Effect.try(() => process.kill(-pid, signal))))
}

/** A command that runs in a process group of its own. */
export interface Command {
  readonly pid: number
  /** Its exit code, as a shell has it. */
  readonly exit: Effect.Effect<number>
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
}

const startError = (command: string, cause: unknown): CliExit =>
  new CliExit({
    code: codes.notExecutable,
    detail: `${command}: ${cause instanceof Error ? cause.message : String(cause)}`
  })

/** The code that a process ends with, as a shell has it; it fails when the process could not be started. */
const exitOf = (child: ChildProcess): Effect.Effect<number, Error> => {
  const ended = Deferred.makeUnsafe<number, Error>()
  child.once(
    "exit",
    (code, signal) => Deferred.doneUnsafe(ended, Effect.succeed(signal === null ? code ?? 0 : codeOfSignal(signal)))
  )
  child.once("error", (error) => Deferred.doneUnsafe(ended, Effect.fail(error)))
  return Deferred.await(ended)
}

/** Milliseconds of a clock that all processes of the machine read alike. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6

/** The shell waits for a line, which comes when the watcher knows the group, and becomes the command. */
const gate = "read -r go <&3 || exit 125; exec \"$@\" 3<&-"

const isThere = (path: string): boolean => statSync(path, { throwIfNoEntry: false }) !== undefined

/** What a shell says of a command that it cannot run. */
const checkCommand = (command: string): Effect.Effect<void, CliExit> =>
  Effect.suspend(() => {
    const folders = command.includes("/") ? [""] : (process.env.PATH ?? "/usr/bin:/bin").split(":")
    const paths = command === "" ? [] : folders.map((folder) => folder === "" ? command : `${folder}/${command}`)
    const attempts = paths.map((path) =>
      Effect.try({
        try: () => {
          accessSync(path, constants.X_OK)
          if (!statSync(path).isFile()) throw new Error("is no file")
        },
        catch: () => path
      })
    )
    const denied = (): CliExit =>
      paths.some((path) => Effect.runSync(Effect.orElseSucceed(Effect.try(() => isThere(path)), () => false)))
        ? new CliExit({ code: codes.notExecutable, detail: `${command}: permission denied` })
        : new CliExit({ code: codes.notFound, detail: `${command}: command not found` })
    return attempts.length === 0 ? Effect.fail(denied()) : Effect.mapError(Effect.firstSuccessOf(attempts), denied)
  })

const spawnCommand = (
  command: string,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>>
): Effect.Effect<ChildProcess, CliExit> =>
  Effect.try({
    try: () =>
      spawn("/bin/sh", ["-c", gate, "sh", command, ...args], {
        detached: true,
        stdio: ["inherit", "inherit", "inherit", "pipe"],
        env: { ...process.env, ...env }
      }),
    // Most errors come as an event; that the arguments are too long, say, is thrown.
    catch: (cause) => startError(command, cause)
  })

const openGate = (child: ChildProcess): void => {
  const end = child.stdio[3]
  if (!(end instanceof Writable)) return
  end.on("error", () => {})
  end.end("go\n")
}

/**
 * Starts the command when the watcher knows its process: however early this program dies, nothing runs on. Signals that
 * this program gets are passed on to the command until the scope closes.
 */
export const start = (
  command: string,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>>,
  started: (pid: number) => void
): Effect.Effect<Command, CliExit, Scope.Scope> => {
  const spawned = Effect.gen(function*() {
    yield* checkCommand(command)
    const child = yield* spawnCommand(command, args, env)
    const { pid } = child
    const exit = exitOf(child)
    if (pid === undefined) {
      return yield* Effect.matchEffect(exit, {
        onFailure: (error) => Effect.fail(startError(command, error)),
        onSuccess: () => Effect.fail(startError(command, "it has no process"))
      })
    }
    started(pid)
    const handlers = forwarded.map((signal) => [signal, () => group(pid, signal)] as const)
    for (const [signal, handler] of handlers) process.on(signal, handler)
    openGate(child)
    return {
      pid,
      exit: Effect.orDie(exit),
      signal: (signal: NodeJS.Signals) => Effect.sync(() => group(pid, signal)),
      handlers
    }
  })
  return Effect.acquireRelease(spawned, ({ handlers }) =>
    Effect.sync(() => {
      for (const [signal, handler] of handlers) process.off(signal, handler)
    }))
}

/** Ends the group of a command when it is not told often enough that the lease is held. */
export interface Watcher {
  /** The lease of the command `pid` is good until this moment of `now`. */
  readonly protect: (pid: number, until: number) => void
  /** It ended though it was not told to, or it could not be started. */
  readonly died: Effect.Effect<void>
}

const watcherFile = fileURLToPath(import.meta.resolve("./watcher.ts".replace(".ts", import.meta.url.slice(-3))))

/**
 * Starts the watcher: a process of its own in a session of its own, so that neither the death nor a stop of this program
 * leaves the command unprotected. It starts before the command, and ends with the scope.
 */
export const watch = (killAfter: number): Effect.Effect<Watcher, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, [watcherFile, String(killAfter)], {
        detached: true,
        stdio: ["pipe", "ignore", "ignore"]
      })
      // It may be gone before the next line is written.
      child.stdin.on("error", () => {})
      return {
        protect: (pid: number, until: number): void => void child.stdin.write(`${pid} ${until}\n`),
        died: Effect.ignore(exitOf(child)),
        // The last line says that the command has ended.
        end: (): void => void child.stdin.end("done\n")
      }
    }),
    ({ end }) => Effect.sync(end)
  )
