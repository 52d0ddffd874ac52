/**
 * The faults in the order in which they are dealt.
 */
import type { Draw } from "./Draw.ts"
import type { World } from "./Nemesis.ts"
import { block, kill, killAny, stop, stopAny } from "./processFaults.ts"
import type { Random } from "./Random.ts"
import {
  cut,
  cutOffHolder,
  deafClient,
  deafServer,
  dropOneReplyTo,
  dropReply,
  late,
  longSilence,
  refuse,
  silence,
  slow,
  strandAny,
  swallow,
  verbs
} from "./roadFaults.ts"
import { isolate, killServer, pauseServer, wipeServer } from "./serverFaults.ts"
import type { Target } from "./Target.ts"

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
  killAny,
  stop("holding"),
  stop("waiting"),
  stopAny,
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
  strandAny,
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
    return dealt.pop() ?? stopAny
  }
}
