/**
 * Processes of the harness: each leads a process group of its own, writes into a log file, and does not outlive the
 * test process, however that one ends (see reaper.sh).
 */
import { Effect } from "effect"
import * as ChildProcess from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { HarnessError } from "./HarnessError.ts"

/** A running process and its group. */
export interface Process {
  /** Waits until it is gone; answers its exit code, or the name of the signal that ended it. */
  readonly exit: Effect.Effect<number | string>
  readonly isRunning: Effect.Effect<boolean>
  /** Sends SIGKILL to the group and waits until it is gone. */
  readonly kill: Effect.Effect<void>
  /** Sends SIGSTOP to the group and waits until it stands still. */
  readonly pause: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
}

/** The path of a script of the harness. */
export const script = (name: string): string => fileURLToPath(new URL(name, import.meta.url))

const gibibyte = 1024 ** 3

/**
 * Where temporary folders go: `DLOCK_TEST_TMP`, or memory, where a sync to disk costs nothing, if there is enough of it
 * (a container has 64 MB by default), or else the system's folder.
 */
const temporary = (): string => {
  const chosen = process.env.DLOCK_TEST_TMP
  if (chosen !== undefined) return Path.resolve(chosen)
  const memory = "/dev/shm"
  try {
    Fs.accessSync(memory, Fs.constants.W_OK)
    const { bavail, bsize } = Fs.statfsSync(memory)
    return bavail * bsize >= 4 * gibibyte ? memory : Os.tmpdir()
  } catch {
    return Os.tmpdir()
  }
}

let root: string | undefined

/** The folder of this test process, with a reaper that watches over it. */
export const rootFolder = (): string => {
  if (root !== undefined) return root
  root = Fs.mkdtempSync(Path.join(temporary(), "dlock-test-"))
  const reaper = ChildProcess.spawn("/bin/sh", [script("reaper.sh"), root], {
    cwd: "/",
    detached: true,
    stdio: ["pipe", "ignore", "ignore"]
  })
  reaper.unref()
  if (reaper.stdin instanceof Net.Socket) reaper.stdin.unref()
  return root
}

/** Makes a fresh folder; the caller removes it, or else the reaper does. */
export const makeFolder = (server: string): Effect.Effect<string, HarnessError> =>
  Effect.try({
    try: () => Fs.mkdtempSync(Path.join(rootFolder(), `${server}-`)),
    catch: (cause) => new HarnessError({ server, problem: `no temporary folder: ${String(cause)}` })
  })

/** Removes a folder; the last writes of a killed group may still come in. */
export const removeFolder = (folder: string): Effect.Effect<void> =>
  Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 }))

const log = (folder: string): string => Path.join(folder, "log")

/** What the processes of this folder wrote last. */
export const tail = (folder: string, lines = 12): string => {
  try {
    return Fs.readFileSync(log(folder), "utf8").trimEnd().split("\n").slice(-lines).join("\n")
  } catch {
    return ""
  }
}

// The group is on record before the program starts, so that the reaper finds it at any moment.
const prelude = `: > "$0/$$.group" && exec "$@" >> "$0/log" 2>&1`

/** Starts a program; `folder` takes its log. */
export const launch = (
  server: string,
  folder: string,
  command: ReadonlyArray<string>
): Effect.Effect<Process, HarnessError> =>
  Effect.uninterruptible(Effect.callback((resume) => {
    const child = ChildProcess.spawn("/bin/sh", ["-c", prelude, folder, ...command], {
      cwd: folder,
      detached: true,
      stdio: "ignore"
    })
    child.once("error", (cause) =>
      resume(Effect.fail(new HarnessError({ server, problem: `cannot start ${command[0]}: ${cause.message}` }))))
    child.once("spawn", () =>
      resume(Effect.succeed(fromChild(folder, child))))
  }))

const fromChild = (folder: string, child: ChildProcess.ChildProcess): Process => {
  const group = child.pid ?? 0
  const ended = (): number | string | null => child.exitCode ?? child.signalCode
  child.once("exit", () => Fs.rmSync(Path.join(folder, `${group}.group`), { force: true }))

  const exit = Effect.callback<number | string>((resume) => {
    const answer = () => resume(Effect.sync(() => ended() ?? "unknown"))
    if (ended() !== null) return answer()
    child.once("exit", answer)
    return Effect.sync(() => child.off("exit", answer))
  })

  const signal = (name: NodeJS.Signals) =>
    Effect.sync(() => {
      if (ended() === null) process.kill(-group, name)
    })

  /** A process with many threads goes on for some milliseconds after SIGSTOP: Linux tells when all have stopped. */
  const hasStopped = (): boolean => {
    const tasks = `/proc/${group}/task`
    if (ended() !== null || !Fs.existsSync(tasks)) return true
    return Fs.readdirSync(tasks).every((task) => {
      try {
        return /\) [TtZX] /.test(Fs.readFileSync(`${tasks}/${task}/stat`, "utf8"))
      } catch {
        // This thread is gone.
        return true
      }
    })
  }
  const stopped = Effect.callback<void>((resume) => {
    const look = () => hasStopped() ? resume(Effect.void) : void setImmediate(look)
    look()
  })

  return {
    exit,
    isRunning: Effect.sync(() => ended() === null),
    kill: Effect.andThen(signal("SIGKILL"), exit),
    pause: Effect.andThen(signal("SIGSTOP"), stopped),
    resume: signal("SIGCONT")
  }
}
