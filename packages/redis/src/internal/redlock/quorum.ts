/**
 * What the votes of N independent servers come to. Pure: no server, no clock and no randomness, so that thousands of
 * histories with lost, late and repeated votes can be played through it.
 *
 * Any two majorities have a server in common, and that server gives its key to one owner at a time. So one owner at a
 * time holds a majority, for as long as none of its servers lets the key expire, which the drift accounts for.
 *
 * Tokens grow by the same argument: before a token is given out, a majority holds it (or a greater one) beside the key.
 * The next holder's majority has a server in common with that one, whose proposal is greater than what it has stored,
 * and the greatest proposal of a majority is the token. What lies between the greatest token that its servers had stored
 * and the new one was never given out, and is the new holder's too.
 */

/** What the argument above rests on. */
export interface Rules {
  /** How many of so many servers decide. */
  readonly majority: (nodes: number) => number
  /** By how much the clocks may disagree about a ttl; both in milliseconds. */
  readonly drift: (ttl: number) => number
  /** Whether a token has to be known to a majority before it is given out. */
  readonly writesBack: boolean
}

export const rules: Rules = {
  majority: (nodes) => Math.floor(nodes / 2) + 1,
  drift: (ttl) => ttl / 100 + 2,
  writesBack: true
}

/** Votes of the three kinds, one of each server. */
export interface Tally {
  /** Counts a vote, unless that server has voted. */
  readonly vote: (node: number, kind: "yes" | "no" | "away") => void
  readonly yes: () => number
  readonly no: () => number
  readonly away: () => number
  readonly pending: () => number
}

export const tally = (nodes: number): Tally => {
  const voted = new Set<number>()
  const counts = { yes: 0, no: 0, away: 0 }
  return {
    vote: (node, kind) => {
      if (voted.has(node)) return
      voted.add(node)
      counts[kind]++
    },
    yes: () => counts.yes,
    no: () => counts.no,
    away: () => counts.away,
    pending: () => nodes - voted.size
  }
}

/**
 * Whether a majority says yes (`yes`), cannot say yes whatever the others say (`no`), or neither is known, now (`open`)
 * or ever (`unknown`).
 */
export const verdict = (votes: Tally, majority: number): "yes" | "no" | "open" | "unknown" => {
  const nodes = votes.yes() + votes.no() + votes.away() + votes.pending()
  const against = nodes - majority + 1
  if (votes.yes() >= majority) return "yes"
  if (votes.no() >= against) return "no"
  const canDecide = votes.yes() + votes.pending() >= majority || votes.no() + votes.pending() >= against
  return canDecide && votes.pending() > 0 ? "open" : "unknown"
}

/** What a server says when it is asked for a key. */
export type TakeVote =
  /** `last`: the last token that the server knew before, or more. */
  | { readonly _tag: "Ours", readonly token: bigint, readonly last: bigint }
  | { readonly _tag: "Held", readonly holder: string, readonly millis: number }
  | { readonly _tag: "Away" }

/** What a vote leads to. */
export type Step =
  /** More votes are needed, or nothing is any more. */
  | { readonly _tag: "Open" }
  /** The token has to be written to those servers. */
  | { readonly _tag: "Raise", readonly token: bigint, readonly nodes: ReadonlyArray<number> }
  /** The tokens from `first` to `token` are this grant's: they are greater than what a majority knew before. */
  | { readonly _tag: "Granted", readonly token: bigint, readonly first: bigint }
  /** Others have it; or, in a tie, none has. */
  | { readonly _tag: "Refused", readonly isTie: boolean, readonly freeInMillis: number }
  /** Too few servers can be reached. */
  | { readonly _tag: "Away" }
  /** A majority was had, but too late to be of use. */
  | { readonly _tag: "Late" }

const open: Step = { _tag: "Open" }

/** One attempt at a majority, whose first request was sent at `startedAt`. Times are ms of a monotonic clock. */
export interface Ballot {
  readonly nodes: number
  readonly startedAt: number
  readonly ttl: number
  readonly rules: Rules
  /** How many servers decide. */
  readonly needed: number
  readonly votes: Tally
  /** What each server that voted for us proposes. */
  readonly tokens: Map<number, bigint>
  /** How many servers each other holder has, and after how long these servers let go. */
  readonly holders: Map<string, number>
  readonly expiries: Array<number>
  /** The greatest last token that was told. */
  greatestLast: bigint
  /** The token and the first that is ours, once a majority voted for us; and which servers have it. */
  won: { readonly token: bigint, readonly first: bigint, readonly raised: Tally } | undefined
  isDecided: boolean
}

export const ballot = (nodes: number, startedAt: number, ttl: number, rules: Rules): Ballot => ({
  nodes,
  startedAt,
  ttl,
  rules,
  needed: rules.majority(nodes),
  votes: tally(nodes),
  tokens: new Map(),
  holders: new Map(),
  expiries: [],
  greatestLast: 0n,
  won: undefined,
  isDecided: false
})

const decide = (ballot: Ballot, step: Step): Step => {
  ballot.isDecided = true
  return step
}

/** When enough of the servers that refused will have let go; negative: never by themselves. */
const freeInMillis = ({ expiries, needed, votes }: Ballot): number => {
  const missing = needed - votes.yes() - votes.pending()
  const sorted = expiries.map((millis) => millis < 0 ? Number.POSITIVE_INFINITY : millis).toSorted((a, b) => a - b)
  const last = sorted[missing - 1] ?? Number.POSITIVE_INFINITY
  return Number.isFinite(last) ? last : -1
}

/** Whether another has it, or none: further votes are waited for as long as they can tell. */
const refuse = (ballot: Ballot): Step => {
  const { holders, needed, votes } = ballot
  const largest = Math.max(0, ...holders.values())
  const isHeld = largest >= needed
  const isTie = largest + votes.pending() + votes.away() < needed
  return isHeld || isTie || votes.pending() === 0
    ? decide(ballot, { _tag: "Refused", isTie, freeInMillis: freeInMillis(ballot) })
    : open
}

/** What it comes to once servers were told the token. */
const afterRaise = (ballot: Ballot, now: number): Step => {
  const { needed, nodes, rules, startedAt, ttl, won } = ballot
  if (won === undefined) return open
  switch (rules.writesBack ? verdict(won.raised, needed) : "yes") {
    case "yes": {
      const isInTime = ttl - (now - startedAt) - rules.drift(ttl) > 0
      return decide(ballot, isInTime ? { _tag: "Granted", token: won.token, first: won.first } : { _tag: "Late" })
    }
    case "open":
      return open
    default:
      return decide(
        ballot,
        nodes - won.raised.away() < needed ? { _tag: "Away" } : { _tag: "Refused", isTie: true, freeInMillis: 0 }
      )
  }
}

/** A majority voted for us: the greatest proposal is the token, and a majority has to have it. */
const win = (ballot: Ballot, now: number): Step => {
  const { greatestLast, nodes, tokens } = ballot
  const token = [...tokens.values()].reduce((a, b) => a > b ? a : b)
  const raised = tally(nodes)
  for (const [node, proposed] of tokens) if (proposed === token) raised.vote(node, "yes")
  ballot.won = { token, first: token > greatestLast ? greatestLast + 1n : token, raised }
  const step = afterRaise(ballot, now)
  if (step._tag !== "Open") return step
  const others = Array.from({ length: nodes }, (_, node) => node).filter((node) => tokens.get(node) !== token)
  return { _tag: "Raise", token, nodes: others }
}

/** Counts a server's answer to the request for the key, at the time `now`. */
export const countTake = (ballot: Ballot, node: number, vote: TakeVote, now: number): Step => {
  const { expiries, holders, needed, nodes, tokens, votes, won } = ballot
  if (ballot.isDecided) return open
  // One that votes late may have the token already.
  if (won !== undefined) {
    return vote._tag === "Ours" && vote.token >= won.token ? countRaise(ballot, node, "yes", now) : open
  }
  const before = votes.pending()
  votes.vote(node, vote._tag === "Ours" ? "yes" : vote._tag === "Held" ? "no" : "away")
  if (votes.pending() === before) return open
  if (vote._tag === "Ours") {
    tokens.set(node, vote.token)
    if (vote.last > ballot.greatestLast) ballot.greatestLast = vote.last
  } else if (vote._tag === "Held") {
    holders.set(vote.holder, (holders.get(vote.holder) ?? 0) + 1)
    expiries.push(vote.millis)
  }
  if (votes.yes() >= needed) return win(ballot, now)
  if (votes.yes() + votes.pending() >= needed) return open
  // If those that are away were with us, would it be enough? Then their absence decides.
  return nodes - votes.away() < needed ? decide(ballot, { _tag: "Away" }) : refuse(ballot)
}

/** Counts whether a server has the token, and us as its owner, now that it was written there. */
export const countRaise = (ballot: Ballot, node: number, kind: "yes" | "no" | "away", now: number): Step => {
  if (ballot.isDecided || ballot.won === undefined) return open
  ballot.won.raised.vote(node, kind)
  return afterRaise(ballot, now)
}
