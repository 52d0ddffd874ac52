/**
 * Histories of clients that contend for one key on N servers, in virtual time, over a network that delays, drops and
 * repeats what is sent: the quorum logic is the real one, servers and clients are models of the scripts and of what is
 * done with the votes. Clocks run at different speeds, as far apart as the drift allows, and tell different times.
 */
import type { Rules, Step, TakeVote } from "../src/internal/redlock/quorum.ts"
import { ballot, countRaise, countTake, tally, verdict } from "../src/internal/redlock/quorum.ts"

/** All times are in microseconds. */
const ttl = 200_000
const nodeLimit = 20_000
const clients = 3
const length = ttl * 4

/** The same numbers for the same seed (mulberry32). */
const randomOf = (seed: number) => {
  let state = seed
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
  return {
    between: (least: number, most: number) => least + next() * (most - least),
    chance: (part: number) => next() < part
  }
}

/** What happens when, in order of time. */
class Agenda {
  now = 0
  private readonly heap: Array<{ readonly at: number, readonly run: () => void }> = []

  after(delay: number, run: () => void): void {
    const { heap } = this
    const entry = { at: this.now + delay, run }
    let i = heap.push(entry) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      const above = heap[parent]
      if (above === undefined || above.at <= entry.at) break
      heap[i] = above
      i = parent
    }
    heap[i] = entry
  }

  run(until: number): void {
    const { heap } = this
    for (let first = heap[0]; first !== undefined && first.at < until; first = heap[0]) {
      const last = heap.pop()
      if (last !== undefined && heap.length > 0) this.sink(last)
      this.now = first.at
      first.run()
    }
  }

  private sink(entry: { readonly at: number, readonly run: () => void }): void {
    const { heap } = this
    let i = 0
    while (true) {
      let child = 2 * i + 1
      let below = heap[child]
      const right = heap[child + 1]
      if (right !== undefined && below !== undefined && right.at < below.at) {
        child++
        below = right
      }
      if (below === undefined || below.at >= entry.at) break
      heap[i] = below
      i = child
    }
    heap[i] = entry
  }
}

/** A server: the scripts, as a model. */
class Server {
  private holder: { readonly value: string, until: number } | undefined
  private fence: bigint | undefined
  private readonly voids = new Set<string>()
  readonly clock: () => number

  constructor(clock: () => number) {
    this.clock = clock
  }

  private get current(): string | undefined {
    if (this.holder !== undefined && this.holder.until <= this.clock()) this.holder = undefined
    return this.holder?.value
  }

  take(value: string, validUntil: number, least: bigint): TakeVote {
    if (this.clock() > validUntil || this.voids.has(value)) return { _tag: "Away" }
    const current = this.current
    if (current !== undefined && current !== value) return { _tag: "Held", holder: current, millis: 1 }
    this.holder = { value, until: this.clock() + ttl }
    if (current !== undefined && this.fence !== undefined) {
      return { _tag: "Ours", token: this.fence, last: this.fence - 1n }
    }
    const last = this.fence ?? 0n
    this.fence = last < least ? least : last + 1n
    return { _tag: "Ours", token: this.fence, last }
  }

  hold(value: string, token: bigint): "yes" | "no" {
    if (this.current !== value || this.holder === undefined) return "no"
    this.holder.until = this.clock() + ttl
    if (this.fence === undefined || this.fence < token) this.fence = token
    return "yes"
  }

  release(value: string): void {
    this.voids.add(value)
    if (this.current === value) this.holder = undefined
  }
}

/** What a history has shown. */
export interface Outcome {
  readonly grants: number
  readonly renewals: number
  readonly writeBacks: number
  /** What must not be, if it was. */
  readonly violation: string | undefined
}

/** Plays one history. */
export const play = (seed: number, nodes: number, rules: Rules): Outcome => {
  const random = randomOf(seed)
  const agenda = new Agenda()
  const servers = Array.from({ length: nodes }, () => {
    const rate = random.chance(0.5) ? 1.005 : random.between(0.995, 1.005)
    return new Server(() => agenda.now * rate)
  })
  const trouble = random.chance(0.3) ? 0 : random.between(0, 0.15)
  const holders = new Set<string>()
  let highest = -1n
  let grants = 0
  let renewals = 0
  let writeBacks = 0
  let violation: string | undefined

  const delay = () =>
    random.chance(trouble) ? random.between(0, random.chance(0.3) ? 2 * ttl : nodeLimit) : random.between(50, 1000)
  /** Brings something to the other side: perhaps late, perhaps twice, perhaps not at all. */
  const transmit = (deliver: () => void) => {
    if (random.chance(trouble)) return
    agenda.after(delay(), deliver)
    if (random.chance(trouble)) agenda.after(delay(), deliver)
  }
  const call = <A>(node: number, ask: (server: Server) => A, onAnswer: (answer: A) => void) =>
    transmit(() => {
      const server = servers[node]
      if (server === undefined) return
      const answer = ask(server)
      transmit(() => onAnswer(answer))
    })

  const client = (name: number) => {
    const rate = random.chance(0.5) ? 0.995 : random.between(0.995, 1.005)
    const ahead = random.between(-ttl, ttl)
    const millis = () => agenda.now * rate / 1000
    const ttlMillis = ttl / 1000
    /** From a time on the client's clock to one on the agenda. */
    const at = (time: number) => time * 1000 / rate
    let attempts = 0

    const attempt = () => {
      const value = `${name}/${attempts++}`
      const startedAt = millis()
      const round = ballot(nodes, startedAt, ttlMillis, rules)
      const least = BigInt(Math.max(0, Math.round(agenda.now + ahead + ttl)))
      let isOver = false

      const giveUp = () => {
        isOver = true
        for (let node = 0; node < nodes; node++) call(node, (server) => server.release(value), () => {})
        agenda.after(random.between(500, ttl / 12), attempt)
      }
      const follow = (step: Step): void => {
        if (isOver) return
        switch (step._tag) {
          case "Open":
            return
          case "Raise":
            writeBacks++
            for (const node of step.nodes) {
              call(
                node,
                (server) => server.hold(value, step.token),
                (kind) => follow(countRaise(round, node, kind, millis()))
              )
              agenda.after(nodeLimit, () => follow(countRaise(round, node, "away", millis())))
            }
            return
          case "Granted":
            return hold(value, step.first, step.token, startedAt, giveUp)
          default:
            return giveUp()
        }
      }
      for (let node = 0; node < nodes; node++) {
        const validUntil = (servers[node]?.clock() ?? 0) + nodeLimit
        call(
          node,
          (server) => server.take(value, validUntil, least),
          (vote) => follow(countTake(round, node, vote, millis()))
        )
        agenda.after(nodeLimit, () => follow(countTake(round, node, { _tag: "Away" }, millis())))
      }
    }

    const hold = (value: string, first: bigint, granted: bigint, startedAt: number, giveUp: () => void) => {
      grants++
      if (holders.size > 0) violation ??= `${value} and ${[...holders].join()} hold the key at the same time`
      let token = granted
      /** All of these tokens are used. */
      const use = (first: bigint, last: bigint) => {
        if (first <= highest) violation ??= `${value} got the token ${first} after ${highest}`
        if (last > highest) highest = last
      }
      use(first, token)
      holders.add(value)
      let deadline = startedAt + ttlMillis - rules.drift(ttlMillis)
      const plan = random.between(0, 3)

      const end = () => {
        if (holders.delete(value)) giveUp()
      }
      const watch = (): void =>
        agenda.after(Math.max(1, at(deadline) - agenda.now), () => {
          if (millis() >= deadline) end()
          else watch()
        })
      const renew = () => {
        if (!holders.has(value)) return
        const sentAt = millis()
        const next = random.chance(0.5) ? token : token + BigInt(Math.round(random.between(1, 1000)))
        const votes = tally(nodes)
        let isRenewed = false
        for (let node = 0; node < nodes; node++) {
          const validUntil = (servers[node]?.clock() ?? 0) + nodeLimit
          call(node, (server) => server.hold(value, next), (kind) => {
            votes.vote(node, kind)
            if (!isRenewed && verdict(votes, rules.majority(nodes)) === "yes") {
              isRenewed = true
              renewals++
              if (next > token && holders.has(value)) {
                use(token + 1n, next)
                token = next
              }
              if (sentAt + ttlMillis - rules.drift(ttlMillis) > deadline) {
                deadline = sentAt + ttlMillis - rules.drift(ttlMillis)
              }
            }
            if (isRenewed && kind === "no" && holders.has(value)) {
              call(node, (server) => server.take(value, validUntil, token), () => {})
            }
          })
        }
        agenda.after(ttl / 3, renew)
      }
      watch()
      if (plan < 1) agenda.after(random.between(0, ttl / 4), end)
      if (plan > 2) {
        agenda.after(ttl / 3, renew)
        agenda.after(random.between(ttl, 3 * ttl), end)
      }
    }

    agenda.after(random.between(0, 2000), attempt)
  }

  for (let name = 0; name < clients; name++) client(name)
  agenda.run(length)
  return { grants, renewals, writeBacks, violation }
}
