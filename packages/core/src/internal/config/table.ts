/**
 * What core itself has to configure, and what each backend has: whether it is enabled.
 */
import * as Options from "../../backend/Options.ts"
import type { Section } from "./declaration.ts"
import { variable } from "./declaration.ts"

/** A backend, as far as it is configured. */
export interface Backend {
  readonly name: string
  readonly declaration?: Section | undefined
}

/** The variable that enables a backend. */
export const enabledVariable = (name: string): string => variable(name, "enabled")

/** The variable that says where the file is. */
export const fileVariable = variable("config")

/** What every backend has: whether it is enabled. */
export const enabled = (name: string) =>
  Options.declare(name, {
    enabled: Options.flag({
      description: "Whether `LockRegistry.layerConfig` builds this backend.",
      default: false
    })
  })

/** The defaults of every lock. */
export const lock = Options.declare("", {
  ttl: Options.duration({
    description: "How long the backend keeps a lease without renewal.",
    default: "30 seconds"
  }),
  timeout: Options.duration({
    zero: true,
    infinite: true,
    description: "The longest wait for a key.",
    default: "Infinity"
  }),
  retryTimes: Options.integer({
    minimum: 0,
    description: "Attempts after the first one, instead of a place in line. Without limit if only the delay is set."
  }),
  retryDelay: Options.duration({
    zero: true,
    description: "The time between two attempts, instead of a place in line. 100ms if only the number of them is set."
  }),
  maxHold: Options.duration({
    infinite: true,
    description: "No renewal beyond this; the lease is then lost.",
    default: "Infinity"
  }),
  turn: Options.duration({
    zero: true,
    description: "How long from a grant the process may serve its own line before the key goes back to the backend.",
    default: "20 millis"
  }),
  linger: Options.duration({
    zero: true,
    description: "How long the process keeps a key after its last use, unless another process waits for it.",
    default: "0 millis"
  })
})

/** What a backend has to configure. */
export const sectionOf = ({ declaration, name }: Backend): Section => {
  const enabling = enabled(name)
  if (declaration === undefined) return enabling
  return {
    name,
    entries: [...enabling.entries, ...declaration.entries],
    check: (written) => [...enabling.check(written), ...declaration.check(written)]
  }
}

/** What core and these backends have to configure. */
export const sectionsOf = (backends: ReadonlyArray<Backend>): ReadonlyArray<Section> => [
  lock,
  ...backends.map(sectionOf)
]
