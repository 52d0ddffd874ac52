/**
 * Redis: a single server.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { HarnessError } from "./HarnessError.ts"
import { host, reserve } from "./Port.ts"
import { ask } from "./Probe.ts"
import * as Server from "./Server.ts"

const settings = (folder: string, port: number): ReadonlyArray<string> => [
  "--port",
  `${port}`,
  "--bind",
  host,
  "--dir",
  `${folder}/data`,
  // A kill of the process loses nothing that was answered, and nothing is ever synced to disk.
  "--save",
  "",
  "--appendonly",
  "yes",
  "--appendfsync",
  "no"
]

/**
 * A Redis server. It keeps its data over `kill` and `start`, unless `args` say otherwise.
 */
export const redis = (options: {
  readonly args?: ReadonlyArray<string> | undefined
  readonly password?: string | undefined
} = {}): Effect.Effect<Server.Server, HarnessError, Scope.Scope> =>
  Server.onFreePorts(Effect.gen(function*() {
    const port = yield* reserve
    const { args = [], password } = options
    return yield* Server.make({
      name: "redis",
      port,
      command: (folder) => [
        "redis-server",
        ...settings(folder, port),
        ...(password === undefined ? [] : ["--requirepass", password]),
        ...args
      ],
      probe: ask({ host, port }, `${password === undefined ? "" : `AUTH ${password}\r\n`}PING\r\n`, /\+PONG\r\n/)
    })
  }))
