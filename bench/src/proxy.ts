/**
 * A network with latency, between a client and its servers on this machine: what arrives on one side goes out on the other
 * after a delay that is the same for all. Runs in a process of its own, and counts round trips.
 */
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"

interface Parcel {
  readonly due: number
  readonly deliver: () => void
}

/** The last part of a wait is spun through: the operating system may wake a sleeper this late, in milliseconds. */
const slack = 0.1
const sleeper = new Int32Array(new SharedArrayBuffer(4))

// The delay is constant, so what came first is due first.
const parcels: Array<Parcel> = []
let isPumping = false
let trips = 0

/** Timers count whole milliseconds; short waits of a thread do not. In between, what arrives is read at once. */
const pump = () => {
  for (let first = parcels[0]; first !== undefined; first = parcels[0]) {
    const left = first.due - performance.now()
    if (left > 0) {
      if (left > slack) Atomics.wait(sleeper, 0, 0, Math.min(left - slack, slack))
      setImmediate(pump)
      return
    }
    parcels.shift()
    first.deliver()
  }
  isPumping = false
}

const later = (delayMillis: number, deliver: () => void) => {
  parcels.push({ due: performance.now() + delayMillis, deliver })
  if (isPumping) return
  isPumping = true
  setImmediate(pump)
}

const forward = (from: Socket, to: Socket, delayMillis: number, onData: () => void) => {
  from.setNoDelay(true)
  from.on("data", (data) => {
    onData()
    later(delayMillis, () => {
      to.write(data)
    })
  })
  from.on("end", () => later(delayMillis, () => to.end()))
  from.on("error", () => to.destroy())
  from.on("close", () => later(delayMillis, () => to.destroy()))
}

/** Stands before a server; answers the address to connect to instead. */
const before = async (target: string, delayMillis: number): Promise<string> => {
  const [host = "", port] = target.split(":")
  const server = createServer((client) => {
    const upstream = connect(Number(port), host)
    // A round trip begins when the client sends something after it was answered.
    let isAsking = false
    forward(client, upstream, delayMillis, () => {
      if (!isAsking) trips++
      isAsking = true
    })
    forward(upstream, client, delayMillis, () => {
      isAsking = false
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

export const start = (targets: ReadonlyArray<string>, delayMillis: number): Promise<ReadonlyArray<string>> =>
  Promise.all(targets.map((target) => before(target, delayMillis)))

/** Round trips since the last time. */
export const takeTrips = (): number => {
  const taken = trips
  trips = 0
  return taken
}
