/**
 * The data folders of servers that take seconds to make one: the first is kept, and copied for all that come after.
 */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { promisify } from "node:util"
import type { HarnessError } from "./HarnessError.ts"
import * as Process from "./Process.ts"
import * as Program from "./Program.ts"

/** With owners, and with holes in files. */
const copy = (from: string, to: string) =>
  Effect.promise(() => promisify(execFile)("cp", ["-a", from, to])).pipe(Effect.asVoid)

/** Beside an unpacked package for all runs; else for this process, because the machine's programs may change. */
const kept = (kind: string, home: string | undefined): string =>
  home === undefined ? Path.join(Process.rootFolder(), `initialised-${kind}`) : Path.join(home, "initialised")

/** Fills `data` in a folder by a copy, or else by a command. */
export const fill = Effect.fnUntraced(function*(
  { home, ...program }: Program.Program,
  kind: string,
  folder: string,
  command: ReadonlyArray<string>
): Effect.fn.Return<void, HarnessError> {
  const from = kept(kind, home)
  const data = Path.join(folder, "data")
  if (Fs.existsSync(from)) {
    Fs.rmSync(data, { recursive: true })
    return yield* copy(from, data)
  }
  yield* Program.run(program, kind, folder, command)
  const copied = `${from}.${Path.basename(folder)}`
  yield* copy(data, copied).pipe(
    Effect.andThen(Effect.sync(() => Fs.renameSync(copied, from))),
    // Another one was first, or the files in a container or the cache are not ours.
    Effect.catchCause(() => Effect.promise(() => Fs.promises.rm(copied, { recursive: true, force: true })))
  )
})
