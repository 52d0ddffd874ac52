/**
 * The error of the test harness.
 */
import { Schema } from "effect"

/**
 * A server could not be found, started, or told to do something. `addressInUse` when somebody else took its port
 * between the choice of the port and the start.
 */
export class HarnessError extends Schema.TaggedError<HarnessError>()("HarnessError", {
  server: Schema.String,
  problem: Schema.String,
  addressInUse: Schema.optionalKey(Schema.Boolean)
}) {
  override get message(): string {
    return `${this.server}: ${this.problem}`
  }
}
