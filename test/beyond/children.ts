/**
 * Node processes that a test starts, and what they print.
 */
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { type Bundled, bundled } from "../harness/Bundle.ts"

export interface Child {
  /** What it has printed, line by line. */
  readonly lines: ReadonlyArray<string>
  /** Waits for a line that begins like this, from the given one on. */
  readonly until: (start: string, from?: number) => Effect.Effect<string>
  readonly send: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Waits until it has ended and answers with its exit code, or with the signal that ended it. */
  readonly exit: Effect.Effect<number | NodeJS.Signals | null>
}

/** Runs a bundled program until the scope closes. */
export const start = (name: Bundled, ...args: ReadonlyArray<string>): Effect.Effect<Child, never, Scope.Scope> =>
  startWith({}, bundled(name), ...args)

/** The same for any file, with variables added to its environment. */
export const startWith = (
  env: Readonly<Record<string, string>>,
  file: string,
  ...args: ReadonlyArray<string>
): Effect.Effect<Child, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [file, ...args], {
          env: { ...process.env, ...env },
          stdio: ["ignore", "pipe", "inherit"]
        })
      ),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    ),
    (child) => {
      const lines: Array<string> = []
      const watchers = new Set<() => void>()
      let rest = ""
      child.stdout.on("data", (bytes: Buffer) => {
        const parts = (rest + bytes.toString()).split("\n")
        rest = parts.pop() ?? ""
        lines.push(...parts)
        for (const watcher of watchers) watcher()
      })
      return {
        lines,
        until: (begin, from = 0) =>
          Effect.callback((resume) => {
            const look = () => {
              const found = lines.slice(from).find((line) => line.startsWith(begin))
              if (found !== undefined) resume(Effect.succeed(found))
            }
            watchers.add(look)
            look()
            return Effect.sync(() => watchers.delete(look))
          }),
        send: (signal) => Effect.sync(() => child.kill(signal)),
        exit: Effect.callback((resume) => {
          const ended = () => resume(Effect.succeed(child.exitCode ?? child.signalCode))
          if (child.exitCode !== null || child.signalCode !== null) return ended()
          child.once("close", ended)
        })
      }
    }
  )
