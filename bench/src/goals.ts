/**
 * The goals, and whether the kept figures reach them.
 */
import type { Backend } from "./contenders/index.ts"
import type { HandOver } from "./handOver.ts"
import type { Figures } from "./panels.ts"
import { figure } from "./table.ts"

export type AllFigures = Readonly<Record<Backend, Figures>>

export interface Goal {
  readonly what: string
  readonly goal: string
  readonly figure: number | undefined
  /** `undefined`: not measured, or there is no goal and the figure is told for its own sake. */
  readonly isReached: boolean | undefined
  /** What else of the same run it has to be seen beside. */
  readonly beside: string
}

const most = (what: string, value: number | undefined, limit: number | undefined, beside = "", unit = ""): Goal => ({
  what,
  goal: limit === undefined ? "-" : `at most ${figure(limit)}${unit}`,
  figure: value,
  isReached: value === undefined || limit === undefined ? undefined : value <= limit,
  beside
})

const least = (what: string, value: number | undefined, limit: number | undefined, beside = "", unit = ""): Goal => ({
  ...most(what, value, limit, beside, unit),
  goal: limit === undefined ? "-" : `at least ${figure(limit)}${unit}`,
  isReached: value === undefined || limit === undefined ? undefined : value >= limit
})

const of = <A extends { readonly name: string }>(rows: ReadonlyArray<A> | undefined, name: string): A | undefined =>
  rows?.find((row) => row.name === name)

const drained = ({ handOver = [] }: Figures, name: string, processes: number): HandOver | undefined =>
  handOver.find((row) => row.name === name && row.processes === processes && row.waiters === 16 / processes)

const named = (name: string, value: number | undefined, unit = ""): string =>
  value === undefined ? "" : `${name} ${figure(value)}${unit}`

const joined = (...parts: ReadonlyArray<string>): string => parts.filter((part) => part !== "").join(", ")

const pairs = ({ network, uncontended }: Figures): ReadonlyArray<Goal> => {
  const near = of(uncontended, "dlock")
  const far = of(network?.pairs, "dlock")
  const peer = (name: string) => of(uncontended, name)
  const cpu = near === undefined ? undefined : near.userMicros + near.systemMicros
  return [
    most(
      "Redis, one pair at a time, median, to the bare driver",
      near?.medianRatio,
      1.15,
      joined(
        named("redlock", peer("redlock")?.medianRatio),
        named("redis-semaphore", peer("redis-semaphore")?.medianRatio)
      )
    ),
    least(
      "Redis, 64 keys at a time, pairs per second, to the bare driver",
      near?.throughputRatio,
      0.95,
      joined(
        named("redlock", peer("redlock")?.throughputRatio),
        named("redis-semaphore", peer("redis-semaphore")?.throughputRatio)
      )
    ),
    most(
      "Redis, 0.5 ms of network each way, median, to the bare driver",
      far?.medianRatio,
      1.03,
      named("the proxy adds", network?.addedMillis, " ms to a round trip")
    ),
    most("The same, round trips per pair", far?.commands, of(network?.pairs, "bare ioredis")?.commands),
    most("Redis, commands of the server per pair", near?.commands, 9),
    most(
      "Redis, processor time of a pair, one at a time, to the bare driver",
      near?.cpuRatio,
      undefined,
      joined(named("dlock", cpu, " µs"), named("of it in system calls", near?.systemMicros, " µs"))
    )
  ]
}

const redlock = ({ uncontended }: Figures): ReadonlyArray<Goal> => {
  const [ours, theirs] = [of(uncontended, "dlock"), of(uncontended, "redlock")]
  return [
    most(
      "Redlock of five, one at a time, median µs",
      ours?.medianMicros,
      theirs?.medianMicros,
      "redlock's is the goal"
    ),
    most("The same, p99 µs", ours?.p99Micros, theirs?.p99Micros, "redlock's is the goal")
  ]
}

/** Per second, 1 x 16 and 4 x 4, with a millisecond of work. */
const handOvers = (name: string, figures: Figures, inOne: number, inFour: number): ReadonlyArray<Goal> =>
  ([[1, inOne], [4, inFour]] as const).map(([processes, limit]) => {
    const bounds = (figures.handOver ?? []).filter(({ waiters }) => waiters === 1)
    return least(
      `${name}, ${processes} x ${16 / processes} waiters, hand-overs per second`,
      drained(figures, "dlock", processes)?.perSecond,
      limit,
      joined(
        named("live-mutex", drained(figures, "live-mutex", processes)?.perSecond),
        ...bounds.map((row) => named(row.name, row.perSecond))
      )
    )
  })

const hot = ({ handOver, hotKey = [], linger }: Figures): ReadonlyArray<Goal> => {
  const row = (name: string, layers: number, workMillis: number) =>
    hotKey.find((one) => one.name === name && one.layers === layers && one.workMillis === workMillis)
  const [without, by] = [of(linger?.rows, "dlock"), of(linger?.rows, "dlock, linger")]
  const trips = (longer: number | undefined) =>
    longer === undefined || linger?.tripMillis === undefined ? undefined : longer / linger.tripMillis
  return [
    least("Redis, sections of nothing, 16 fibers of one process, per second", row("dlock", 1, 0)?.perSecond, 50_000),
    most(
      "Redis, commands per hand-over, 4 x 4",
      drained({ handOver }, "dlock", 4)?.commands,
      4,
      named("redlock", drained({ handOver }, "redlock", 4)?.commands)
    ),
    most("Redis, commands per hand-over where each is one of the server", row("dlock, turn 0", 2, 1)?.commands, 25),
    least(
      "Redis, `linger`, sections per second of one fiber",
      by?.sectionsPerSecond,
      50_000,
      named("without", without?.sectionsPerSecond)
    ),
    most(
      "The same, a waiter of another process 100 ms after the last section, longer by so many round trips",
      trips(by && without && by.laterMillis - without.laterMillis),
      2,
      joined(named("it waits", by?.laterMillis, " ms"), named("without", without?.laterMillis, " ms"))
    ),
    most(
      "The same, right after the last section",
      trips(by && without && by.idleMillis - without.idleMillis),
      2,
      joined(named("it waits", by?.idleMillis, " ms"), named("without", without?.idleMillis, " ms"))
    )
  ]
}

const holding = (name: string, figures: Figures, cpu: number, lag: number | undefined): ReadonlyArray<Goal> => {
  const held = (who: string) => figures.holding?.find((row) => row.name === who && row.count === 10_000)
  const ours = held("dlock")
  const peer = held("redlock")
  return [
    most(
      `${name}, 10,000 leases, % of a core`,
      ours?.cpuPercent,
      cpu,
      joined(named("by acquire", held("dlock (acquire)")?.cpuPercent), named("redlock", peer?.cpuPercent))
    ),
    most(
      `${name}, 10,000 leases, lag of the event loop, p99 ms`,
      ours?.lagP99Millis,
      lag,
      joined(named("by acquire", held("dlock (acquire)")?.lagP99Millis), named("redlock", peer?.lagP99Millis))
    )
  ]
}

const postgres = (figures: Figures): ReadonlyArray<Goal> => {
  const ours = of(figures.uncontended, "dlock")
  const [cost, bare] = [of(figures.postgresCost, "dlock"), of(figures.postgresCost, "two updates")]
  return [
    most("Postgres, one pair at a time, median, to two bare updates", ours?.medianRatio, 1.25),
    least("Postgres, 64 keys at a time, pairs per second, to two bare updates", ours?.throughputRatio, 4),
    ...handOvers("Postgres", figures, 400, 250),
    ...holding("Postgres", figures, 5, undefined),
    most("Postgres, write-ahead log per pair, bytes", cost?.walBytes, undefined, named("two updates", bare?.walBytes)),
    most("Postgres, dead rows per pair", cost?.deadRows, undefined, named("two updates", bare?.deadRows))
  ]
}

const beyond = ({ beyond: run }: Figures): ReadonlyArray<Goal> => {
  const waiting = (limit: number) => {
    const rows = (run?.permits ?? []).filter((row) => row.limit === limit)
    const peers = rows.filter(({ name }) => name !== "dlock")
    const best = peers.length === 0 ? undefined : Math.max(...peers.map(({ perSecond }) => perSecond))
    return least(
      `Redis, 64 waiting for ${limit} permits, sections of 1 ms per second`,
      of(rows, "dlock")?.perSecond,
      best,
      joined(...peers.map((row) => named(row.name, row.perSecond)))
    )
  }
  return [
    most("Redis, eight free keys, to one", of(run?.free, "eight keys")?.ratio, 1.5),
    most("Redis, a free permit, to one lock", of(run?.free, "one of 50 permits")?.ratio, 2.2),
    waiting(5),
    waiting(50)
  ]
}

export const goals = (all: AllFigures): ReadonlyArray<Goal> => [
  ...pairs(all.redis),
  ...redlock(all.redlock),
  ...handOvers("Redis", all.redis, 800, 750),
  ...hot(all.redis),
  ...holding("Redis", all.redis, 4, 2),
  ...beyond(all.redis),
  ...handOvers("etcd", all.etcd, 400, 250),
  ...handOvers("ZooKeeper", all.zookeeper, 600, 450),
  ...handOvers("MariaDB", all.mysql, 780, 650),
  ...postgres(all.postgres)
]
