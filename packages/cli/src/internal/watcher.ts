/**
 * The program of the watcher: `watcher KILL_AFTER`, a time in milliseconds. A line `PID UNTIL` of standard input says until
 * which moment of the machine's monotonic clock, in milliseconds, the lease of the process group PID is good. When that runs
 * out, the group gets SIGTERM at the deadline less KILL_AFTER and SIGKILL at the deadline; when standard input ends, which is
 * what the death of `dlock` looks like, it gets SIGTERM at once and SIGKILL after KILL_AFTER, or at the deadline if that
 * is earlier. A line `done` ends the watcher.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { createInterface } from "node:readline"

const killAfter = Number(process.argv[2])

/** The process group, and until when its lease is good. */
interface Protected {
  readonly pid: number
  readonly until: number
}

type Event = Protected | "done" | "end"

const parse = (line: string): Event => {
  const [pid = 0, until = 0] = line.split(" ").map(Number)
  return line === "done" ? "done" : { pid, until }
}

const events = Effect.gen(function*() {
  const queue = yield* Queue.unbounded<Event>()
  const reader = createInterface({ input: process.stdin })
  reader.on("line", (line) => Queue.offerUnsafe(queue, parse(line)))
  reader.on("close", () => Queue.offerUnsafe(queue, "end"))
  // A pipe that breaks is an end as well, and not the watcher's own.
  process.stdin.on("error", () => Queue.offerUnsafe(queue, "end"))
  return queue
})

const left = ({ until }: Protected): number => Math.max(0, until - Number(process.hrtime.bigint()) / 1e6)

const kill = ({ pid }: Protected, signal: NodeJS.Signals) => Effect.ignore(Effect.try(() => process.kill(-pid, signal)))

const done = (queue: Queue.Dequeue<Event>): Effect.Effect<void> =>
  Effect.flatMap(Queue.take(queue), (event) => event === "done" ? Effect.void : done(queue))

/** A group that ends in time is not sent SIGKILL: its number may be another's by then. */
const terminate = (queue: Queue.Dequeue<Event>, group: Protected): Effect.Effect<void> =>
  Effect.andThen(
    kill(group, "SIGTERM"),
    Effect.raceFirst(
      done(queue),
      Effect.andThen(Effect.sleep(Math.min(killAfter, left(group))), kill(group, "SIGKILL"))
    )
  )

const watch = (queue: Queue.Dequeue<Event>, group: Protected): Effect.Effect<void> =>
  Effect.raceFirst(
    Queue.take(queue),
    Effect.as(Effect.sleep(Math.max(0, left(group) - killAfter)), "late" as const)
  ).pipe(Effect.flatMap((event) => {
    if (event === "done") return Effect.void
    return event === "late" || event === "end" ? terminate(queue, group) : watch(queue, event)
  }))

/** The first line names the group. None comes when the command could not be started. */
const program = Effect.gen(function*() {
  const queue = yield* events
  const first = yield* Queue.take(queue)
  if (typeof first === "object") yield* watch(queue, first)
})

Effect.runPromise(program).then(() => process.exit(0))
