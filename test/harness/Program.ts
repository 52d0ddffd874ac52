/**
 * How the programs of a server are run: as processes of this machine, or in containers.
 */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { addressIn, cache, catalog } from "./Catalog.ts"
import type { Entry, Kind, Wrap } from "./Catalog.ts"
import * as Docker from "./Docker.ts"
import { HarnessError } from "./HarnessError.ts"
import { host } from "./Port.ts"
import * as Process from "./Process.ts"

/** A program to be started. */
export interface Launch {
  /** Its working folder, which takes its log. */
  readonly folder: string
  /** The command line, given the address to listen on. */
  readonly command: (bind: string) => ReadonlyArray<string>
  /** What it will listen on. */
  readonly ports?: ReadonlyArray<number> | undefined
  /** Whether it talks to other servers of the harness. */
  readonly inGroup?: boolean | undefined
}

/** Runs the programs of one kind of server. */
export interface Program {
  /** The folder into which its package was unpacked, if it was. */
  readonly home?: string | undefined
  readonly launch: (launch: Launch) => Effect.Effect<Process.Process, HarnessError>
}

const onMachine = (kind: Kind, wrap: Wrap): Program => {
  const home = Path.join(cache, kind)
  const [program = ""] = wrap([])
  return {
    home: program.startsWith(`${home}/`) ? home : undefined,
    launch: ({ command, folder }) => Process.launch(kind, folder, wrap(command(host)))
  }
}

/** Where the reason is kept why something could not be fetched. */
export const problemFile = (kind: Kind): string => Path.join(cache, `${kind}.problem`)

const advice = (kind: Kind): string => {
  const { install, title, variable }: Entry = catalog[kind]
  if (Fs.existsSync(problemFile(kind))) return Fs.readFileSync(problemFile(kind), "utf8").trim()
  const ways = [
    ...(install === undefined ? [] : [`install it (root on Debian: apt-get install ${install.join(" ")})`]),
    "start Docker",
    ...(variable === undefined ? [] : [`set ${variable} to the address of one that runs`])
  ]
  return `${title} is not on this machine: ${ways.join(", or ")}`
}

const found = new Map<Kind, Program | undefined>()

const locate = (kind: Kind): Program | undefined => {
  if (found.has(kind)) return found.get(kind)
  const { docker, local }: Entry = catalog[kind]
  const wrap = local()
  const inContainer = wrap === undefined && docker !== undefined && Docker.isRunning() && Docker.has(docker.image)
  if (wrap !== undefined) found.set(kind, onMachine(kind, wrap))
  else found.set(kind, inContainer ? Docker.program(kind, docker.image, docker.wrap) : undefined)
  return found.get(kind)
}

/** Forgets what was found, after something was brought in. */
export const lookAgain = (): void => found.clear()

/** Why tests of this kind cannot run, or undefined if they can. */
export const problem = (kind: Kind): string | undefined => {
  const { variable }: Entry = catalog[kind]
  if (variable !== undefined && addressIn(variable) !== undefined) return undefined
  return locate(kind) === undefined ? advice(kind) : undefined
}

/** Whether tests of this kind can run; answers at once, for use while tests are collected. */
export const available = (kind: Kind): boolean => problem(kind) === undefined

/** The programs of this kind. */
export const find = (kind: Kind): Effect.Effect<Program, HarnessError> =>
  Effect.suspend(() => {
    const program = locate(kind)
    return program === undefined
      ? new HarnessError({ server: kind, problem: advice(kind) })
      : Effect.succeed(program)
  })

/** Runs a program to its end; anything but exit code 0 is an error that shows what it wrote. */
export const run = (
  program: Program,
  server: string,
  folder: string,
  command: ReadonlyArray<string>
): Effect.Effect<void, HarnessError> =>
  Effect.acquireUseRelease(
    program.launch({ folder, command: () => command }),
    (child) =>
      Effect.flatMap(child.exit, (code) =>
        code === 0 ? Effect.void : Effect.fail(
          new HarnessError({ server, problem: `${command[0]} ended with ${code}:\n${Process.tail(folder)}` })
        )),
    (child) => child.kill
  )
