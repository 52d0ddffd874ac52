/**
 * A backend on real servers, as a run sees it: what can be broken, how workers get there, what it promises, and what may
 * be left in it.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { HarnessError } from "../harness/HarnessError.ts"
import { type Proxy, proxy } from "../harness/Proxy.ts"
import type { Server } from "../harness/Server.ts"
import type { Promises } from "./checks/Promises.ts"
import type { Written } from "./History.ts"
import type { Connection, Roads } from "./Spec.ts"
import type { Reader } from "./verbs.ts"

/** How one worker gets to each of the servers, in their order. */
export type Way = ReadonlyArray<Proxy>

/** A backend that can be put to the test. */
export interface Target {
  readonly promises: Promises
  /** What workers connect to; some of them can be broken. */
  readonly servers: ReadonlyArray<Server>
  /** Which of them is broken when one is; the leader, where there is one. Undefined: none now. */
  readonly victim: (choose: (servers: ReadonlyArray<Server>) => Server | undefined) => Effect.Effect<Server | undefined>
  readonly connection: (way: Way) => Connection
  /** Which verbs a client asks for by these bytes. */
  readonly reads: Reader
  /** Whether locks are remembered over a pause or a restart of a server. */
  readonly forgets: { readonly pause?: "always" | "unheard", readonly kill?: "always" | "unheard" }
  /** How long after a fault of a server clients may still be on the wrong one, in milliseconds. */
  readonly settles: number
  /** Cuts a server off from the others, while clients still reach it; where servers see each other through gates. */
  readonly isolation?:
    | { readonly isolate: (server: Server) => Effect.Effect<void>, readonly heal: Effect.Effect<void> }
    | undefined
  /** Whether it gives more than one token for a hold, so that holds pass between the fibers of a process. */
  readonly passes: boolean
  /** Whether a server can lose its data, and is then a server without locks. */
  readonly wipes: boolean
  /** How many layers each worker builds. */
  readonly layers?: number | undefined
  readonly workers?: number | undefined
  /** What was written in fenced transactions; absent where nothing is fenced. */
  readonly ledger?: Effect.Effect<ReadonlyArray<Written>> | undefined
  /** How many watches and subscriptions the servers have, by name; nothing where they cannot be counted. */
  readonly watched: Effect.Effect<Record<string, number>>
  /** What is left of these keys that should not be, a word each. */
  readonly residue: (keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>>
}

/** Starts the servers of a backend, which end with the scope. */
export type Start = Effect.Effect<Target, HarnessError, Scope.Scope>

/** Roads of one worker. */
export const pave = (servers: ReadonlyArray<Server>): Effect.Effect<Way, HarnessError, Scope.Scope> =>
  Effect.forEach(servers, proxy)

/** By what the servers call themselves. */
export const roadsOf = (servers: ReadonlyArray<Server>, way: Way): Roads =>
  Object.fromEntries(servers.map(({ addr }, i) => [addr, way[i]?.addr ?? addr]))

export const addrsOf = (way: Way): ReadonlyArray<string> => way.map(({ addr }) => addr)
