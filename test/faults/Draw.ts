/**
 * What all faults have in common: how a victim and a length are drawn, and how a fault ends.
 */
import { Effect } from "effect"
import { now } from "./Monotonic.ts"
import type { Plan, World } from "./Nemesis.ts"
import type { Moment } from "./Spec.ts"

/** A fault, whose victim and length are to be drawn. Undefined: there is no victim now. */
export type Draw = (world: World) => Effect.Effect<Plan | undefined>

export const harm = (inject: Effect.Effect<void>, millis: number, heal: Effect.Effect<void>): Effect.Effect<boolean> =>
  done(Effect.ensuring(Effect.andThen(inject, Effect.sleep(millis)), heal))

export const done = (fault: Effect.Effect<unknown>): Effect.Effect<boolean> => Effect.as(fault, true)

/** From a third of the ttl to nearly twice as much. */
export const anyLength = ({ random, target }: World): number =>
  random.between(target.promises.ttl / 3, target.promises.ttl * 1.8)

/** Longer than the ttl, and longer than the server may need to notice. */
export const beyondTtl = ({ random, target: { promises } }: World): number =>
  promises.ttl + promises.granularity + random.between(100, promises.ttl / 2)

export const slotOf = ({ crew, random }: World): number => random.between(0, crew.slots - 1)

/** How long a worker may take until it is in the moment that it was told to wait for. */
export const longestAmbush = 1500

export const inAmbush = <M extends Moment>(at: M) => ({ at, until: now() + longestAmbush })
