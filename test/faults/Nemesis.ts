/**
 * Does harm, drawn from a seed: several things at once, each bounded in time and healed.
 */
import { Effect, FiberSet } from "effect"
import type { Scope } from "effect"
import type { Crew } from "./Crew.ts"
import { deck } from "./deck.ts"
import type { Fault } from "./History.ts"
import { now } from "./Monotonic.ts"
import type { Random } from "./Random.ts"
import * as Roads from "./roadFaults.ts"
import type { Target, Way } from "./Target.ts"

/** What can be harmed. */
export interface World {
  readonly target: Target
  readonly crew: Crew
  /** The roads of each place in the crew. */
  readonly ways: ReadonlyArray<Way>
  readonly random: Random
}

/** A fault that has been drawn. */
export interface Plan {
  readonly name: string
  readonly kind: Fault["kind"]
  readonly slot?: number | undefined
  readonly forgets?: Fault["forgets"]
  /** How long it may be felt after it was healed, in milliseconds. */
  readonly settles?: number | undefined
  /** What no other fault may touch meanwhile. */
  readonly claims: ReadonlyArray<string>
  /** Harms, waits, and heals, also when interrupted; answers whether there was anything to harm. */
  readonly run: Effect.Effect<boolean>
}

/** How many faults at once, at most. */
const concurrency = 3
const shortestBreath = 200
const longestBreath = 1300
/** A longer run pauses now and then: only then can the order of the line be judged. */
const peaceEvery = 30_000
const peaceMillis = 9000

/** Harms for so many milliseconds; returns when all is healed. Answers what was done. */
export const rage = (world: World, millis: number): Effect.Effect<ReadonlyArray<Fault>> =>
  Effect.scoped(Effect.gen(function*(): Effect.fn.Return<ReadonlyArray<Fault>, never, Scope.Scope> {
    const { random } = world
    const done: Array<Fault> = []
    const claimed = new Set<string>()
    const running = yield* FiberSet.make<boolean>()
    const end = now() + millis
    let peace = now() + peaceEvery
    const deal = deck(world)
    let card = deal()

    const start = (plan: Plan) => {
      const from = now()
      for (const claim of plan.claims) claimed.add(claim)
      const { forgets, kind, name, settles = 0, slot } = plan
      return FiberSet.run(
        running,
        plan.run.pipe(
          Effect.tap((happened) =>
            Effect.sync(() => {
              if (happened) done.push({ name, kind, slot, forgets, from, to: now() + settles })
            })
          ),
          Effect.ensuring(Effect.sync(() => {
            for (const claim of plan.claims) claimed.delete(claim)
          }))
        )
      )
    }

    while (now() < end) {
      if ((yield* FiberSet.size(running)) < concurrency) {
        const plan = yield* card(world)
        const mustWait = plan?.claims.some((claim) => claimed.has(claim)) ?? false
        if (plan !== undefined && !mustWait) yield* start(plan)
        if (!mustWait) card = deal()
      }
      if (now() > peace) {
        yield* FiberSet.awaitEmpty(running)
        yield* Effect.sleep(Math.min(peaceMillis, Math.max(0, end - now())))
        peace = now() + peaceEvery
      } else {
        yield* Effect.sleep(random.between(shortestBreath, longestBreath))
      }
    }
    yield* FiberSet.awaitEmpty(running)
    return done
  }))

/**
 * When what was sent on a broken connection arrives: while a void mark is to keep it out, and when even that is gone.
 * Both are watched after their arrival.
 */
const arrivals = [500, 3500]
/** How long the workers may need to connect again, and to withdraw what was not answered. */
const settling = 500
const watched = 2500

/**
 * What every run begins with, while nothing else happens.
 *
 * Requests of a worker arrive after it gave up waiting for their answers, and must change nothing any more: what they
 * leave would hold up the others for a ttl, which is not excused. Then the reply to one request of each verb is dropped.
 */
export const drill = (world: World): Effect.Effect<ReadonlyArray<Fault>> =>
  Effect.gen(function*() {
    const faults: Array<Fault> = []
    if (world.target.servers.length === 0) return faults
    yield* Effect.forEach(arrivals, (millis, slot) =>
      Effect.gen(function*() {
        const from = now()
        yield* Roads.strand(world.ways[slot] ?? [], millis)
        // Where a lock goes with its connection, the server learns only now that it is gone.
        const to = world.target.promises.goesWithConnection ? now() : from + Roads.gathering + settling
        faults.push({ name: Roads.stranded, kind: "network", slot, aftermath: 0, from, to })
      }), { concurrency: "unbounded" })
    yield* Effect.sleep(watched)
    for (const verb of Roads.verbs) {
      const from = now()
      const wasDropped = yield* Roads.dropReplyTo(verb, world)
      if (wasDropped) faults.push({ name: Roads.replyTo(verb), kind: "network", from, to: now() })
    }
    return faults
  })
