import { assert, describe, it } from "@effect/vitest"
import type { IWatchRequest, IWatchResponse } from "etcd3"
import type { EtcdClient, WatchSink } from "../src/internal/EtcdClient.ts"
import * as EtcdWatch from "../src/internal/EtcdWatch.ts"
import { notice } from "./FakeEtcd.ts"

const response = (change: Partial<IWatchResponse>): IWatchResponse => notice(7n, change)

const event = (type: "Put" | "Delete"): IWatchResponse["events"][number] => {
  const kv = {
    key: Buffer.from("k"),
    create_revision: "1",
    mod_revision: "1",
    version: "1",
    value: Buffer.alloc(0),
    lease: "0"
  }
  return { type, kv, prev_kv: kv }
}

const notAsked = () => assert.fail("not asked in these tests")

/** Streams that a test plays the server of. */
const fake = () => {
  const streams: Array<{ readonly sink: WatchSink, readonly sent: Array<IWatchRequest>, condemned: boolean }> = []
  const client: EtcdClient = {
    probe: notAsked,
    grant: notAsked,
    keepAlive: notAsked,
    revoke: notAsked,
    keysOf: notAsked,
    txn: notAsked,
    txnOnLease: notAsked,
    watch: (sink) => {
      const stream = { sink, sent: new Array<IWatchRequest>(), condemned: false }
      streams.push(stream)
      return {
        write: (request) => stream.sent.push(request),
        close: () => sink.broken(),
        condemn: () => {
          stream.condemned = true
          sink.broken()
        }
      }
    }
  }
  return { streams, watches: EtcdWatch.make(client) }
}

const makeListener = () => {
  const told: Array<string> = []
  const listener: EtcdWatch.Listener = {
    onStanding: (revision) => told.push(`standing at ${revision}`),
    onDeleted: () => told.push("deleted"),
    onBroken: () => told.push("broken")
  }
  return { told, listener }
}

describe("EtcdWatch", () => {
  it("shares one stream, and tells each listener of its own key", () => {
    const { streams, watches } = fake()
    const [a, b] = [makeListener(), makeListener()]
    watches.open("a", undefined, a.listener)
    watches.open("b", 5n, b.listener)
    const [stream] = streams
    assert.strictEqual(streams.length, 1)
    assert.deepStrictEqual(
      stream?.sent.map(({ create_request }) => [String(create_request?.key), create_request?.start_revision]),
      [
        ["a", undefined],
        ["b", "5"]
      ]
    )
    stream?.sink.message(response({ created: true, watch_id: "10" }))
    stream?.sink.message(response({ created: true, watch_id: "11" }))
    stream?.sink.message(response({ watch_id: "11", events: [event("Put")] }))
    stream?.sink.message(response({ watch_id: "11", events: [event("Put"), event("Delete")] }))
    assert.deepStrictEqual(a.told, ["standing at 7"])
    assert.deepStrictEqual(b.told, ["standing at 7", "deleted"])
  })

  it("cancels what is closed, also before it stands, and tells nothing afterwards", () => {
    const { streams, watches } = fake()
    const [early, late, other] = [makeListener(), makeListener(), makeListener()]
    const first = watches.open("early", undefined, early.listener)
    const second = watches.open("late", undefined, late.listener)
    watches.open("other", undefined, other.listener)
    const [stream] = streams
    first.close()
    first.close()
    for (const watch_id of ["0", "1", "2"]) stream?.sink.message(response({ created: true, watch_id }))
    second.close()
    stream?.sink.message(response({ watch_id: "0", events: [event("Delete")] }))
    stream?.sink.message(response({ watch_id: "1", events: [event("Delete")] }))
    stream?.sink.message(response({ watch_id: "2", events: [event("Delete")] }))
    assert.deepStrictEqual([early.told, late.told], [[], ["standing at 7"]])
    assert.deepStrictEqual(other.told, ["standing at 7", "deleted"], "the order of the answers is kept")
    assert.deepStrictEqual(
      stream?.sent.flatMap(({ cancel_request }) => cancel_request?.watch_id ?? []),
      ["0", "1"]
    )
  })

  it("tells everybody when the stream breaks, and begins another one when asked", () => {
    const { streams, watches } = fake()
    const [standing, pending, closed, next] = [makeListener(), makeListener(), makeListener(), makeListener()]
    watches.open("standing", undefined, standing.listener)
    watches.open("closed", undefined, closed.listener).close()
    streams[0]?.sink.message(response({ created: true, watch_id: "0" }))
    const watch = watches.open("pending", undefined, pending.listener)
    streams[0]?.sink.broken()
    assert.deepStrictEqual([standing.told, pending.told, closed.told], [["standing at 7", "broken"], ["broken"], []])
    watches.open("next", undefined, next.listener)
    assert.strictEqual(streams.length, 2)
    watch.close()
    assert.strictEqual(streams[1]?.sent.length, 1, "what is closed after the break says nothing to the new stream")
    watch.condemn()
    assert.deepStrictEqual(next.told, [], "nor does what is condemned")
  })

  it("tells of a watch that the server cancels, for a compaction for example", () => {
    const { streams, watches } = fake()
    const [a, b] = [makeListener(), makeListener()]
    watches.open("a", 1n, a.listener)
    watches.open("b", undefined, b.listener)
    streams[0]?.sink.message(response({ created: true, watch_id: "0" }))
    streams[0]?.sink.message(response({ created: true, watch_id: "1" }))
    streams[0]?.sink.message(response({ canceled: true, watch_id: "0", compact_revision: "9" }))
    assert.deepStrictEqual([a.told, b.told], [["standing at 7", "broken"], ["standing at 7"]])
  })

  it("takes a refusal for a token that ran out: the stream, which it sticks to, is not used again", () => {
    const { streams, watches } = fake()
    const [a, b] = [makeListener(), makeListener()]
    watches.open("a", undefined, a.listener)
    watches.open("b", undefined, b.listener)
    streams[0]?.sink.message(
      response({ created: true, canceled: true, watch_id: "-1", cancel_reason: "etcdserver: permission denied" })
    )
    assert.isTrue(streams[0]?.condemned)
    assert.deepStrictEqual([a.told, b.told], [["broken"], ["broken"]])
  })
})
