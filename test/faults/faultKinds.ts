/**
 * The faults: each is drawn with its victim and its length, which is often longer than the ttl.
 */
import { Effect } from "effect"
import type { Proxy } from "../harness/Proxy.ts"
import type { Server } from "../harness/Server.ts"
import { now } from "./Monotonic.ts"
import type { Plan, World } from "./Nemesis.ts"
import type { Random } from "./Random.ts"
import type { Moment, Order } from "./Spec.ts"
import type { Target, Way } from "./Target.ts"
import { asksOnlyFor, type Verb } from "./verbs.ts"

/** A fault, whose victim and length are to be drawn. Undefined: nobody is there to be harmed now. */
export type Draw = (world: World) => Effect.Effect<Plan | undefined>

const harm = (inject: Effect.Effect<void>, millis: number, heal: Effect.Effect<void>): Effect.Effect<boolean> =>
  done(Effect.ensuring(Effect.andThen(inject, Effect.sleep(millis)), heal))

const done = (fault: Effect.Effect<unknown>): Effect.Effect<boolean> => Effect.as(fault, true)

/** From a third of the ttl to nearly twice as much. */
const anyLength = ({ random, target }: World): number =>
  random.between(target.promises.ttl / 3, target.promises.ttl * 1.8)

/** Longer than the ttl, and longer than the server may need to notice. */
const beyondTtl = ({ random, target: { promises } }: World): number =>
  promises.ttl + promises.granularity + random.between(100, promises.ttl / 2)

const slotOf = ({ crew, random }: World): number => random.between(0, crew.slots - 1)

// ---------------------------------------------------------------------------------------------------------------------
// Processes
// ---------------------------------------------------------------------------------------------------------------------

/** How long a worker may take until it is in the moment that it was told to wait for. */
const longestAmbush = 1500

const inAmbush = <M extends Moment>(at: M) => ({ at, until: now() + longestAmbush })

const kill = (at: Moment): Draw => (world) => {
  const slot = slotOf(world)
  return Effect.succeed({
    name: `kill a ${at === "holding" ? "holder" : "waiter"}`,
    kind: "process",
    slot,
    claims: [`worker ${slot}`],
    run: done(Effect.andThen(world.crew.order(slot, { do: "die", ...inAmbush(at) }), Effect.sleep(longestAmbush)))
  })
}

const stop = (at: Moment): Draw => (world) => {
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

/** It may also stop itself only now: it is not left that way. */
const wake = ({ crew }: World, slot: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let i = 0; i < 5; i++) {
      yield* crew.signal(slot, "SIGCONT")
      yield* Effect.sleep(20)
    }
  })

const stopAnybody: Draw = (world) => {
  const slot = slotOf(world)
  return Effect.succeed({
    name: "stop a worker for a while",
    kind: "process",
    slot,
    claims: [`worker ${slot}`],
    run: harm(world.crew.signal(slot, "SIGSTOP"), anyLength(world), wake(world, slot))
  })
}

const killAnybody: Draw = (world) => {
  const slot = slotOf(world)
  return Effect.succeed({
    name: "kill a worker",
    kind: "process",
    slot,
    claims: [`worker ${slot}`],
    run: done(world.crew.signal(slot, "SIGKILL"))
  })
}

const block = (at: Moment): Draw => (world) => {
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

// ---------------------------------------------------------------------------------------------------------------------
// Roads
// ---------------------------------------------------------------------------------------------------------------------

/** On all roads of one worker, of all workers, or of all workers to one server. */
const onRoads =
  (name: string, inject: (road: Proxy, world: World) => Effect.Effect<void>, millis: (world: World) => number): Draw =>
  (world) => {
    const { random, ways } = world
    const scope = random.pick(["worker", "worker", "everybody", "server"])
    const slot = scope === "worker" ? slotOf(world) : undefined
    const server = random.between(0, world.target.servers.length - 1)
    const roads = ways.flatMap((way, i) =>
      way.filter((_, j) => (slot === undefined || slot === i) && (scope !== "server" || server === j))
    )
    const each = (f: (road: Proxy) => Effect.Effect<void>) => Effect.forEach(roads, f, { discard: true })
    return Effect.succeed({
      name,
      kind: "network",
      slot,
      claims: ways.flatMap((_, i) => slot === undefined || slot === i ? [`roads ${i}`] : []),
      run: harm(each((road) => inject(road, world)), millis(world), each((road) => road.pass))
    })
  }

/** So long that its lease ends under it, and others get the key. */
const cutOffHolder = (direction: "both" | "toServer" | "toClient"): Draw => (world) => {
  const slot = slotOf(world)
  const roads = world.ways[slot] ?? []
  const millis = beyondTtl(world)
  const each = (f: (road: Proxy) => Effect.Effect<void>) => Effect.forEach(roads, f, { discard: true })
  return Effect.succeed({
    name: "cut off a holder beyond its ttl",
    kind: "network",
    slot,
    claims: [`roads ${slot}`, `worker ${slot}`],
    run: world.crew.order(slot, { do: "linger", ...inAmbush("holding"), millis: millis + 1000 }).pipe(
      Effect.andThen(Effect.sleep(200)),
      Effect.andThen(harm(each((road) => road.blackhole(direction)), millis, each((road) => road.pass)))
    )
  })
}

const brief = ({ random }: World): number => random.between(50, 500)

const cut = onRoads("cut all connections", (road) => road.cut, brief)
const refuse = onRoads("refuse connections", (road) => road.refuse, anyLength)
const silence = onRoads("hold back both directions", (road) => road.blackhole("both"), anyLength)
const longSilence = onRoads("hold back both directions beyond the ttl", (road) => road.blackhole("both"), beyondTtl)
const deafServer = onRoads("hold back what goes to the server", (road) => road.blackhole("toServer"), anyLength)
const deafClient = onRoads("hold back what comes from the server", (road) => road.blackhole("toClient"), beyondTtl)
const swallow = onRoads("swallow both directions", (road) => road.drop("both"), anyLength)
const slow = onRoads("delay by some milliseconds", (road, { random }) => road.delay(random.between(5, 60)), anyLength)
const late = onRoads(
  "delay answers beyond the ttl",
  (road, { target }) => road.delay(target.promises.ttl * 1.1),
  beyondTtl
)
const dropReply = onRoads("drop one reply", (road) => road.dropNextReply, brief)

/** How long requests gather on the connections that will break: a renewal is due in that time. */
export const gathering = 700

/** Requests gather on the roads; the connections break for the client; the requests arrive so much later. */
export const strand = (way: Way, millis: number): Effect.Effect<void> => {
  const each = (f: (road: Proxy) => Effect.Effect<void>) => Effect.forEach(way, f, { discard: true })
  return each((road) => road.freeze).pipe(
    Effect.andThen(Effect.sleep(gathering)),
    Effect.andThen(each((road) => road.strand)),
    Effect.andThen(Effect.sleep(millis)),
    Effect.ensuring(each((road) => road.pass))
  )
}

export const stranded = "break connections, and deliver later what was sent on them"

const strandAnybody: Draw = (world) => {
  const slot = slotOf(world)
  return Effect.succeed({
    name: stranded,
    kind: "network",
    slot,
    claims: [`roads ${slot}`],
    run: done(strand(world.ways[slot] ?? [], anyLength(world)))
  })
}

export const verbs: ReadonlyArray<Verb> = ["acquire", "renew", "release"]

export const replyTo = (verb: Verb): string => `drop the reply to one ${verb}`

/** How long a verb may take to be asked for. */
const longestUntilAsked = 6000
/** After this time connections are opened anew: what comes first on one can be read best. */
const patience = 1500

/** Of exactly one request, whoever asks first; answers whether somebody did. */
export const dropReplyTo = (verb: Verb, { target, ways }: World): Effect.Effect<boolean> => {
  const isIt = asksOnlyFor(target.reads, verb)
  let taken = false
  const first = (bytes: Buffer): boolean => {
    if (taken || !isIt(bytes)) return false
    taken = true
    return true
  }
  const renew = Effect.forever(
    Effect.andThen(Effect.sleep(patience), Effect.forEach(ways[0] ?? [], (road) => road.cut, { discard: true }))
  )
  return Effect.raceAllFirst([renew, ...ways.flat().map((road) => road.dropReplyTo(first))]).pipe(
    Effect.as(true),
    Effect.timeoutOrElse({ duration: longestUntilAsked, orElse: () => Effect.succeed(false) })
  )
}

const dropOneReplyTo = (verb: Verb): Draw => (world) =>
  Effect.succeed({ name: replyTo(verb), kind: "network", claims: [], run: dropReplyTo(verb, world) })

// ---------------------------------------------------------------------------------------------------------------------
// Servers
// ---------------------------------------------------------------------------------------------------------------------

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

const pauseServer = onServer(
  "stop a server",
  ({ target }) => target.forgets.pause,
  (server, world) => harm(server.pause, anyLength(world), server.resume)
)

const restart = (server: Server): Effect.Effect<void> => Effect.orDie(server.start)

const killServer = onServer(
  "kill a server and start it again",
  ({ target }) => target.forgets.kill,
  (server, world) => harm(server.kill, anyLength(world), restart(server))
)

const wipeServer = onServer(
  "kill a server and start it without its data",
  () => "always",
  (server, world) => harm(server.kill, anyLength(world), Effect.andThen(Effect.orDie(server.wipe), restart(server)))
)

/** Long enough for the others to choose another leader. */
const isolate = onServer(
  "isolate a server from the others",
  () => undefined,
  (server, world) =>
    harm(
      world.target.isolation?.isolate(server) ?? Effect.void,
      beyondTtl(world),
      world.target.isolation?.heal ?? Effect.void
    )
)

/** What shows most comes first in every run. */
const first: ReadonlyArray<Draw> = [
  cutOffHolder("both"),
  stop("holding"),
  kill("holding"),
  killServer
]

const rest: ReadonlyArray<Draw> = [
  kill("holding"),
  kill("waiting"),
  killAnybody,
  stop("holding"),
  stop("waiting"),
  stopAnybody,
  block("holding"),
  block("waiting"),
  cutOffHolder("both"),
  cutOffHolder("toServer"),
  cutOffHolder("toClient"),
  cut,
  cut,
  refuse,
  silence,
  longSilence,
  deafServer,
  deafClient,
  swallow,
  slow,
  late,
  dropReply,
  ...verbs.map(dropOneReplyTo),
  strandAnybody,
  pauseServer,
  pauseServer,
  killServer,
  killServer
]

const shuffled = <A>({ between }: Random, items: ReadonlyArray<A>): Array<A> => {
  const result = [...items]
  for (let i = result.length - 1; i > 0; i--) result.push(...result.splice(between(0, i), 1))
  return result
}

/** What this target can suffer besides. */
const others = ({ isolation, wipes }: Target): ReadonlyArray<Draw> => [
  ...(wipes ? [wipeServer] : []),
  ...(isolation === undefined ? [] : [isolate, isolate])
]

/** Deals every fault once, in an order of its own, before any comes again. */
export const deck = ({ random, target }: World): () => Draw => {
  const alone = target.servers.length === 0
  const all = alone ? [block("holding"), block("waiting")] : [...rest, ...others(target)]
  // The last is dealt first.
  let dealt = alone ? [] : shuffled(random, first)
  return () => {
    if (dealt.length === 0) dealt = shuffled(random, all)
    return dealt.pop() ?? stopAnybody
  }
}
