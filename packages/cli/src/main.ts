#!/usr/bin/env node
/**
 * The program `dlock`.
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Cause from "effect/Cause"
import { Command } from "effect/cli"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import { readFileSync } from "node:fs"
import { dlock } from "./Cli.ts"
import { codeOfSignal } from "./internal/child.ts"
import { CliExit, codes } from "./internal/exit.ts"

const { version }: { readonly version: string } = JSON.parse(
  readFileSync(new URL("../package.json", import.meta.url), "utf8")
)

/** Standard output is the command's: what the program itself prints comes when it has succeeded. */
const output: Array<string> = []
const console: Console.Console = {
  ...globalThis.console,
  log: (...args: ReadonlyArray<unknown>) => {
    output.push(args.map(String).join(" "))
  },
  error: () => {}
}

const finish = (
  exit: Exit.Exit<void, unknown>,
  signal: NodeJS.Signals | undefined
): readonly [code: number, line: string] => {
  if (Exit.isSuccess(exit)) {
    for (const text of output) process.stdout.write(`${text}\n`)
    return [0, ""]
  }
  if (signal !== undefined) return [codeOfSignal(signal), ""]
  const error = Cause.squash(exit.cause)
  if (error instanceof CliExit) return [error.code, error.detail]
  if (typeof error === "object" && error !== null && "errors" in error && Array.isArray(error.errors)) {
    const [first] = error.errors
    return [codes.usage, first === undefined ? "see dlock --help" : `${String(first.message)} (see dlock --help)`]
  }
  return [codes.unavailable, String(error)]
}

const program = Command.runWith(dlock, { version, renderErrors: false })(process.argv.slice(2)).pipe(
  Effect.provideService(Console.Console, console),
  // One line for each failure, and nothing else.
  Effect.provide(Logger.layer([])),
  Effect.provide(NodeServices.layer)
)

const fiber = Effect.runFork(program)
let interruptedBy: NodeJS.Signals | undefined
for (const signal of ["SIGHUP", "SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // While a command runs, its own handler passes the signal on, and the command decides what becomes of it.
    if (process.listenerCount(signal) > 1) return
    interruptedBy = signal
    fiber.interruptUnsafe()
  })
}
fiber.addObserver((exit) => {
  const [code, line] = finish(exit, interruptedBy)
  if (line !== "") process.stderr.write(`dlock: ${line.replaceAll(/\s*\n\s*/g, " ")}\n`)
  process.exit(code)
})
