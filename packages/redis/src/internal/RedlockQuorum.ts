/**
 * What the votes of N independent servers come to. Pure: no server, no clock and no randomness, so that thousands of
 * histories with lost, late and repeated votes can be played through it.
 *
 * Any two majorities have a server in common, and that server gives its key to one owner at a time. So one owner at a
 * time holds a majority, for as long as none of its servers lets the key expire, which the drift accounts for.
 *
 * Tokens grow by the same argument: before a token is given out, a majority holds it (or a greater one) beside the key.
 * The next holder's majority has a server in common with that one, whose proposal is greater than what it has stored,
 * and the greatest proposal of a majority is the token.
 */

/** What the argument above rests on. */
export interface Rules {
  /** How many of so many servers decide. */
  readonly majority: (nodes: number) => number
  /** By how much the clocks may disagree about a ttl; both in nanoseconds. */
  readonly drift: (ttl: bigint) => bigint
  /** Whether a token has to be known to a majority before it is given out. */
  readonly writesBack: boolean
}

export const rules: Rules = {
  majority: (nodes) => Math.floor(nodes / 2) + 1,
  drift: (ttl) => ttl / 100n + 2_000_000n,
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
 * Whether a majority says yes (`yes`), can not say yes whatever the others say (`no`), or neither is known, now (`open`)
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
  | { readonly _tag: "Ours", readonly token: bigint }
  | { readonly _tag: "Held", readonly holder: string, readonly millis: number }
  | { readonly _tag: "Away" }

/** What a vote leads to. */
export type Step =
  /** More votes are needed, or nothing is any more. */
  | { readonly _tag: "Open" }
  /** The token has to be written to those servers. */
  | { readonly _tag: "Raise", readonly token: bigint, readonly nodes: ReadonlyArray<number> }
  | { readonly _tag: "Granted", readonly token: bigint }
  /** Others have it; or, in a tie, nobody has. */
  | { readonly _tag: "Refused", readonly isTie: boolean, readonly freeInMillis: number }
  /** Too few servers can be reached. */
  | { readonly _tag: "Away" }
  /** A majority was had, but too late to be of use. */
  | { readonly _tag: "Late" }

const open: Step = { _tag: "Open" }

/** One attempt at a majority. */
export interface Ballot {
  /** A server's answer to the request for the key, at the time `now`. */
  readonly take: (node: number, vote: TakeVote, now: bigint) => Step
  /** Whether a server has the token, and us as its owner, now that it was written there. */
  readonly raise: (node: number, kind: "yes" | "no" | "away", now: bigint) => Step
}

/** An attempt whose first request was sent at `startedAt`. Times are in nanoseconds of a monotonic clock. */
export const ballot = (
  nodes: number,
  startedAt: bigint,
  ttl: bigint,
  { drift, majority, writesBack }: Rules
): Ballot => {
  const needed = majority(nodes)
  const votes = tally(nodes)
  const tokens = new Map<number, bigint>()
  const holders = new Map<string, number>()
  const expiries: Array<number> = []
  let token: bigint | undefined
  let raised: Tally | undefined
  let isDecided = false

  const decide = (step: Step): Step => {
    isDecided = true
    return step
  }
  const grant = (token: bigint, now: bigint): Step =>
    decide(ttl - (now - startedAt) - drift(ttl) > 0n ? { _tag: "Granted", token } : { _tag: "Late" })

  /** When enough of those who refused will have let go; negative: never by themselves. */
  const freeInMillis = (): number => {
    const missing = needed - votes.yes() - votes.pending()
    const sorted = expiries.map((millis) => millis < 0 ? Number.POSITIVE_INFINITY : millis).toSorted((a, b) => a - b)
    const last = sorted[missing - 1] ?? Number.POSITIVE_INFINITY
    return Number.isFinite(last) ? last : -1
  }
  /** Whether another has it, or nobody: further votes are waited for as long as they can tell. */
  const refuse = (): Step => {
    const largest = Math.max(0, ...holders.values())
    const isHeld = largest >= needed
    const isTie = largest + votes.pending() + votes.away() < needed
    return isHeld || isTie || votes.pending() === 0
      ? decide({ _tag: "Refused", isTie, freeInMillis: freeInMillis() })
      : open
  }

  const count = (raised: Tally, token: bigint, now: bigint): Step => {
    switch (verdict(raised, needed)) {
      case "yes":
        return grant(token, now)
      case "open":
        return open
      default:
        return decide(
          nodes - raised.away() < needed ? { _tag: "Away" } : { _tag: "Refused", isTie: true, freeInMillis: 0 }
        )
    }
  }

  const won = (now: bigint): Step => {
    token = [...tokens.values()].reduce((a, b) => a > b ? a : b)
    const highest = token
    const having = [...tokens].filter(([, proposed]) => proposed === highest)
    if (!writesBack || having.length >= needed) return grant(highest, now)
    raised = tally(nodes)
    for (const [node] of having) raised.vote(node, "yes")
    const others = Array.from({ length: nodes }, (_, node) => node).filter((node) => tokens.get(node) !== highest)
    return { _tag: "Raise", token: highest, nodes: others }
  }

  return {
    take: (node, vote, now) => {
      if (isDecided) return open
      if (raised !== undefined && token !== undefined) {
        // One who votes late may have it already.
        if (vote._tag !== "Ours" || vote.token < token) return open
        raised.vote(node, "yes")
        return count(raised, token, now)
      }
      const before = votes.pending()
      votes.vote(node, vote._tag === "Ours" ? "yes" : vote._tag === "Held" ? "no" : "away")
      if (votes.pending() === before) return open
      if (vote._tag === "Ours") {
        tokens.set(node, vote.token)
      } else if (vote._tag === "Held") {
        holders.set(vote.holder, (holders.get(vote.holder) ?? 0) + 1)
        expiries.push(vote.millis)
      }
      if (votes.yes() >= needed) return won(now)
      if (votes.yes() + votes.pending() >= needed) return open
      // Were those that are away with us, would it be enough? Then it is their absence that decides.
      return nodes - votes.away() < needed ? decide({ _tag: "Away" }) : refuse()
    },
    raise: (node, kind, now) => {
      if (isDecided || raised === undefined || token === undefined) return open
      raised.vote(node, kind)
      return count(raised, token, now)
    }
  }
}
