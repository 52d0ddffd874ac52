/**
 * Redis: a single server.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { HarnessError } from "./HarnessError.ts"
import { host, reserve } from "./Port.ts"
import { ask } from "./Probe.ts"
import * as Program from "./Program.ts"
import * as Server from "./Server.ts"

/** Of a Redis server. */
export interface Options {
  /** More arguments of `redis-server`; they win over the harness's. */
  readonly args?: ReadonlyArray<string> | undefined
  readonly password?: string | undefined
}

const flags = (settings: Record<string, string>): ReadonlyArray<string> =>
  Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])

const make = Effect.fnUntraced(function*({ args = [], password }: Options) {
  const port = yield* reserve
  const authentication = password === undefined ? "" : `AUTH ${password}\r\n`
  return yield* Server.make({
    name: "redis",
    program: yield* Program.find("redis"),
    ports: [port],
    command: (folder, bind) => [
      "redis-server",
      ...flags({
        port: `${port}`,
        bind,
        "protected-mode": "no",
        dir: `${folder}/data`,
        // A kill of the process loses nothing that was answered, and nothing is ever synced to disk.
        save: "",
        appendonly: "yes",
        appendfsync: "no"
      }),
      ...(password === undefined ? [] : ["--requirepass", password]),
      ...args
    ],
    probe: ask({ host, port }, `${authentication}PING\r\n`, /\+PONG\r\n/)
  })
})

/**
 * A Redis server. It keeps its data over `kill` and `start`, unless `args` say otherwise. `DLOCK_TEST_REDIS` is used
 * when there are no options.
 */
export const redis = (options?: Options): Effect.Effect<Server.Server, HarnessError, Scope.Scope> =>
  Effect.suspend(() => {
    const given = options === undefined ? Server.given("DLOCK_TEST_REDIS") : undefined
    return given === undefined ? Server.onFreePorts(make(options ?? {})) : Effect.succeed(given)
  })
