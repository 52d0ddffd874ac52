/**
 * A process of the bench: makes contenders when it first hears of them, and does with them what it is asked.
 */
import { Socket } from "node:net"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { setTimeout as sleep } from "node:timers/promises"
import { type Contender, now, type Release } from "./Contender.ts"
import { find } from "./contenders/index.ts"
import { startBroker } from "./contenders/liveMutex.ts"
import { start as startProxy, takeTrips } from "./proxy.ts"
import type { Call, Handlers, Reply, Span, Subject } from "./Task.ts"

const made = new Map<string, Promise<Contender>>()

const contenderOf = ({ backend, name, site }: Subject): Promise<Contender> => {
  const id = JSON.stringify([backend, name, site])
  let contender = made.get(id)
  if (contender === undefined) {
    contender = Promise.resolve(find(backend, name).make(site))
    made.set(id, contender)
  }
  return contender
}

const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

// What goes out over sockets: one write may carry many commands.
let writes = 0
let bytes = 0

type Written = (error?: Error | null) => void

const write = Socket.prototype._write
Socket.prototype._write = function(this: Socket, chunk: Buffer | string, encoding: BufferEncoding, done: Written) {
  writes++
  bytes += chunk.length
  return write.call(this, chunk, encoding, done)
}
const writev = Socket.prototype._writev
if (writev !== undefined) {
  Socket.prototype._writev = function(
    this: Socket,
    chunks: Array<{ chunk: Buffer, encoding: BufferEncoding }>,
    done: Written
  ) {
    writes++
    for (const { chunk } of chunks) bytes += chunk.length
    return writev.call(this, chunks, done)
  }
}

const collect = () => {
  globalThis.gc?.()
  return process.memoryUsage()
}

let releases: Array<Release> = []
let lost = 0
const onLost = () => {
  lost++
}

const handlers: Handlers = {
  broker: async ({ port }) => {
    await startBroker(port)
    return null
  },

  drain: async ({ againMillis, keys, waiters, workMillis, ...subject }) => {
    const { run } = await contenderOf(subject)
    if (run === undefined) throw new Error(`${subject.name} does not wait`)
    const errors: Array<string> = []
    const until = now() + againMillis
    const ask = async (key: string, spans: Array<Span>) => {
      do {
        await run(key, async () => {
          const started = now()
          if (workMillis > 0) await sleep(workMillis)
          spans.push([started, now()])
        }).catch((error: unknown) => {
          errors.push(messageOf(error))
        })
      } while (now() < until)
      return spans
    }
    const asked = keys.flatMap((key) => Array.from({ length: waiters }, () => ask(key, [])))
    return { spans: await Promise.all(asked), errors }
  },

  take: async ({ count, ttlMillis, ...subject }) => {
    const { hold } = await contenderOf(subject)
    if (hold === undefined) throw new Error(`${subject.name} does not renew`)
    if (releases.length === 0) {
      // What the first locks leave behind for all others.
      const warm = await Promise.all(Array.from({ length: 200 }, (_, i) => hold(`warm-${i}`, ttlMillis, onLost)))
      await Promise.all(warm.map((release) => release()))
    }
    await sleep(500)
    const before = collect()
    const started = now()
    let next = releases.length
    const end = next + count
    await Promise.all(Array.from({ length: Math.min(100, count) }, async () => {
      while (next < end) releases.push(await hold(`held-${next++}`, ttlMillis, onLost))
    }))
    const took = now() - started
    await sleep(500)
    const after = collect()
    return {
      perSecond: count / took * 1000,
      heapPerLock: (after.heapUsed - before.heapUsed) / count,
      residentPerLock: (after.rss - before.rss) / count
    }
  },

  watch: async ({ millis }) => {
    const delay = monitorEventLoopDelay({ resolution: 10 })
    delay.enable()
    const lostBefore = lost
    const started = now()
    const cpu = process.cpuUsage()
    writes = 0
    bytes = 0
    await sleep(millis)
    const { system, user } = process.cpuUsage(cpu)
    const took = now() - started
    delay.disable()
    return {
      cpuPercent: (system + user) / 10 / took,
      writesPerSecond: writes / took * 1000,
      bytesPerSecond: bytes / took * 1000,
      lagP99: Math.max(0, delay.percentile(99) / 1e6 - 10),
      lagMax: Math.max(0, delay.max / 1e6 - 10),
      lost: lost - lostBefore
    }
  },

  give: async () => {
    const started = now()
    await Promise.allSettled(releases.map((release) => release()))
    releases = []
    return { millis: now() - started }
  },

  pairs: async ({ keys, ...subject }) => (await contenderOf(subject)).sequence(keys),

  proxy: ({ delayMillis, targets }) => startProxy(targets, delayMillis),

  trips: async () => takeTrips(),

  loop: async ({ fibers, key, millis, workMillis, ...subject }) => {
    const { hot } = await contenderOf(subject)
    if (hot === undefined) throw new Error(`${subject.name} has no loops of fibers`)
    return hot(key, fibers, performance.now() + millis, workMillis)
  }
}

const reply = (answer: Reply) => {
  process.send?.(answer)
}

process.on("message", ({ id, input, task }: Call) => {
  const handle: (input: never) => Promise<unknown> = handlers[task]
  handle(input as never).then(
    (output) => reply({ id, output }),
    (error: unknown) => reply({ id, error: messageOf(error) })
  )
})
process.on("disconnect", () => process.exit(0))
