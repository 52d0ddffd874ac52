/**
 * Faults of workers: they die, stand still, or block their event loop.
 */
import { Effect } from "effect"
import { anyLength, beyondTtl, done, type Draw, harm, inAmbush, longestAmbush, slotOf } from "./Draw.ts"
import type { World } from "./Nemesis.ts"
import type { Moment, Order } from "./Spec.ts"

export const kill = (at: Moment): Draw => (world) => {
  const slot = slotOf(world)
  return Effect.succeed({
    name: `kill a ${at === "holding" ? "holder" : "waiter"}`,
    kind: "process",
    slot,
    claims: [`worker ${slot}`],
    run: done(Effect.andThen(world.crew.order(slot, { do: "die", ...inAmbush(at) }), Effect.sleep(longestAmbush)))
  })
}

export const stop = (at: Moment): Draw => (world) => {
  const slot = slotOf(world)
  const { crew } = world
  const isStopped = Effect.gen(function*() {
    for (let i = 0; i < longestAmbush / 10 && !crew.isStopped(slot); i++) yield* Effect.sleep(10)
  })
  return Effect.succeed({
    name: `stop a ${at === "holding" ? "holder" : "waiter"} for longer than its ttl`,
    kind: "process",
    slot,
    claims: [`worker ${slot}`],
    run: harm(
      Effect.andThen(crew.order(slot, { do: "stop", ...inAmbush(at) }), isStopped),
      beyondTtl(world),
      wake(world, slot)
    )
  })
}

/** It may also stop itself only now: it is not left that way, however late the system stops or wakes it. */
const wake = ({ crew }: World, slot: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let i = 0; i < 5 || (crew.isStopped(slot) && i < 250); i++) {
      yield* crew.signal(slot, "SIGCONT")
      yield* Effect.sleep(20)
    }
  })

export const stopAny: Draw = (world) => {
  const slot = slotOf(world)
  return Effect.succeed({
    name: "stop a worker for a while",
    kind: "process",
    slot,
    claims: [`worker ${slot}`],
    run: harm(world.crew.signal(slot, "SIGSTOP"), anyLength(world), wake(world, slot))
  })
}

export const killAny: Draw = (world) => {
  const slot = slotOf(world)
  return Effect.succeed({
    name: "kill a worker",
    kind: "process",
    slot,
    claims: [`worker ${slot}`],
    run: done(world.crew.signal(slot, "SIGKILL"))
  })
}

export const block = (at: Moment): Draw => (world) => {
  const slot = slotOf(world)
  const millis = beyondTtl(world)
  const order: Order = { do: "block", ...inAmbush(at), millis }
  return Effect.succeed({
    name: "block an event loop for longer than the ttl",
    kind: "process",
    slot,
    claims: [`worker ${slot}`],
    run: done(Effect.andThen(world.crew.order(slot, order), Effect.sleep(millis + longestAmbush)))
  })
}
