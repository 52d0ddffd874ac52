/**
 * How the program ends: an exit code that a script can rely on, and one line on standard error.
 */
import type { InvalidLockRequest, LockBackendError, LockLost, LockUnavailable } from "@dlock/core"
import * as Schema from "effect/Schema"

/** The codes of sysexits.h where it has one, and those of a shell. */
export const codes = {
  usage: 64,
  unavailable: 69,
  lost: 70,
  busy: 75,
  config: 78,
  notExecutable: 126,
  notFound: 127
} as const

/** The end of the program with a code that is not the command's. */
export class CliExit extends Schema.TaggedError<CliExit>()("CliExit", {
  code: Schema.Int,
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** The codes that can be chosen. */
export interface Chosen {
  readonly busy: number
  readonly lost: number
}

type LockError = InvalidLockRequest | LockBackendError | LockLost | LockUnavailable

/** What an error of a lock ends the program with. */
export const ofLockError = (error: LockError, { busy, lost }: Chosen): CliExit => {
  const exit = (code: number) => new CliExit({ code, detail: error.message })
  switch (error._tag) {
    case "LockUnavailable":
      return exit(busy)
    case "LockLost":
      return exit(lost)
    case "InvalidLockRequest":
      return exit(codes.usage)
    case "LockBackendError":
      return exit(error.reason === "Options" ? codes.config : codes.unavailable)
  }
}
