/**
 * Faults of servers.
 */
import { Effect } from "effect"
import type { Server } from "../harness/Server.ts"
import { anyLength, beyondTtl, type Draw, harm } from "./Draw.ts"
import type { Plan, World } from "./Nemesis.ts"

const onServer = (
  name: string,
  forgets: (world: World) => Plan["forgets"],
  run: (server: Server, world: World) => Effect.Effect<boolean>
): Draw =>
(world) =>
  Effect.map(world.target.victim(world.random.pick), (server): Plan | undefined =>
    server && {
      name,
      kind: "server",
      forgets: forgets(world),
      settles: world.target.settles,
      // A cluster is asked to survive one of them at a time.
      claims: ["servers"],
      run: run(server, world)
    })

export const pauseServer = onServer(
  "stop a server",
  ({ target }) => target.forgets.pause,
  (server, world) => harm(server.pause, anyLength(world), server.resume)
)

const restart = (server: Server): Effect.Effect<void> => Effect.orDie(server.start)

export const killServer = onServer(
  "kill a server and start it again",
  ({ target }) => target.forgets.kill,
  (server, world) => harm(server.kill, anyLength(world), restart(server))
)

export const wipeServer = onServer(
  "kill a server and start it without its data",
  () => "always",
  (server, world) => harm(server.kill, anyLength(world), Effect.andThen(Effect.orDie(server.wipe), restart(server)))
)

/** Long enough for the others to choose another leader. */
export const isolate = onServer(
  "isolate a server from the others",
  () => undefined,
  (server, world) =>
    harm(
      world.target.isolation?.isolate(server) ?? Effect.void,
      beyondTtl(world),
      world.target.isolation?.heal ?? Effect.void
    )
)
