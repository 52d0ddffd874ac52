/**
 * Runs once before the tests of the project `servers`, and once after them.
 */
import { Effect } from "effect"
import * as Setup from "./Setup.ts"

let skipped: ReadonlyArray<string> = []

export const setup = (): Promise<void> =>
  Effect.runPromise(Effect.map(Setup.setup, (sentences) => {
    skipped = sentences
  }))

/** No test is skipped in silence. */
export const teardown = (): void => {
  for (const sentence of skipped) process.stdout.write(`skipped: ${sentence}\n`)
}
