/**
 * Faults of the roads between workers and servers.
 */
import { Effect } from "effect"
import type { Proxy } from "../harness/Proxy.ts"
import { anyLength, beyondTtl, done, type Draw, harm, inAmbush, slotOf } from "./Draw.ts"
import type { World } from "./Nemesis.ts"
import type { Way } from "./Target.ts"
import { asksOnlyFor, type Verb } from "./verbs.ts"

/** On all roads of one worker, of all workers, or of all workers to one server. */
const onRoads =
  (name: string, inject: (road: Proxy, world: World) => Effect.Effect<void>, millis: (world: World) => number): Draw =>
  (world) => {
    const { random, ways } = world
    const scope = random.pick(["worker", "worker", "all", "server"])
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
export const cutOffHolder = (direction: "both" | "toServer" | "toClient"): Draw => (world) => {
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

export const cut = onRoads("cut all connections", (road) => road.cut, brief)
export const refuse = onRoads("refuse connections", (road) => road.refuse, anyLength)
export const silence = onRoads("hold back both directions", (road) => road.blackhole("both"), anyLength)
export const longSilence = onRoads(
  "hold back both directions beyond the ttl",
  (road) => road.blackhole("both"),
  beyondTtl
)
export const deafServer = onRoads("hold back what goes to the server", (road) => road.blackhole("toServer"), anyLength)
export const deafClient = onRoads(
  "hold back what comes from the server",
  (road) => road.blackhole("toClient"),
  beyondTtl
)
export const swallow = onRoads("swallow both directions", (road) => road.drop("both"), anyLength)
export const slow = onRoads(
  "delay by some milliseconds",
  (road, { random }) => road.delay(random.between(5, 60)),
  anyLength
)
export const late = onRoads(
  "delay answers beyond the ttl",
  (road, { target }) => road.delay(target.promises.ttl * 1.1),
  beyondTtl
)
export const dropReply = onRoads("drop one reply", (road) => road.dropNextReply, brief)

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

export const strandAny: Draw = (world) => {
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
const longestUntilAsked = 20_000
/** After this time connections are opened anew: what comes first on one can be read best. */
const patience = 1500

/** Of exactly one request, the first of any worker; answers whether there was one. */
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

export const dropOneReplyTo = (verb: Verb): Draw => (world) =>
  Effect.succeed({ name: replyTo(verb), kind: "network", claims: [], run: dropReplyTo(verb, world) })
