import { assert, describe, it } from "@effect/vitest"
import type { IWatchRequest, IWatchResponse } from "etcd3"
import type { EtcdClient, WatchSink } from "../src/internal/client.ts"
import * as Watches from "../src/internal/watches.ts"
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
  const streams: Array<
    { readonly sink: WatchSink, readonly sent: Array<IWatchRequest>, discarded: boolean, refusals: number }
  > = []
  const client: EtcdClient = {
    isGiven: false,
    now: () => 0,
    probe: notAsked,
    version: notAsked,
    range: notAsked,
    remaining: notAsked,
    grant: notAsked,
    keepAlive: notAsked,
    revoke: notAsked,
    keysOf: notAsked,
    txn: notAsked,
    txnOnLease: notAsked,
    watch: (sink) => {
      const stream = { sink, sent: new Array<IWatchRequest>(), discarded: false, refusals: 0 }
      streams.push(stream)
      return {
        write: (request) => stream.sent.push(request),
        close: () => sink.broken(),
        discard: () => {
          stream.discarded = true
          sink.broken()
        },
        refused: () => {
          stream.refusals++
          sink.broken()
        }
      }
    }
  }
  const all = Watches.make(client, 5000)
  return { streams, open: (target: Watches.Target, listener: Watches.Listener) => Watches.open(all, target, listener) }
}

const makeListener = () => {
  const told: Array<string> = []
  const listener: Watches.Listener = {
    onStanding: (revision) => told.push(`standing at ${revision}`),
    onDeleted: () => told.push("deleted"),
    onBroken: () => told.push("broken")
  }
  return { told, listener }
}

describe("watches", () => {
  it("shares one stream, and tells each listener of its own key", () => {
    const { open, streams } = fake()
    const [a, b] = [makeListener(), makeListener()]
    open({ key: "a" }, a.listener)
    open({ key: "b", from: 5n }, b.listener)
    const [stream] = streams
    assert.strictEqual(streams.length, 1)
    assert.deepStrictEqual(
      stream?.sent.map(({ create_request }) => [
        create_request?.watch_id,
        String(create_request?.key),
        create_request?.start_revision
      ]),
      [
        ["0", "a", undefined],
        ["1", "b", "5"]
      ]
    )
    // A proxy answers in any order, and gives the same ids as we do.
    stream?.sink.message(response({ created: true, watch_id: "1" }))
    stream?.sink.message(response({ watch_id: "1", events: [event("Put")] }))
    stream?.sink.message(response({ watch_id: "1", events: [event("Put"), event("Delete")] }))
    assert.deepStrictEqual(a.told, [])
    stream?.sink.message(response({ created: true, watch_id: "0" }))
    assert.deepStrictEqual(a.told, ["standing at 7"])
    assert.deepStrictEqual(b.told, ["standing at 7", "deleted"])
  })

  it("cancels what is closed, also before it stands, and tells nothing afterwards", () => {
    const { open, streams } = fake()
    const [early, late, other] = [makeListener(), makeListener(), makeListener()]
    const first = open({ key: "early" }, early.listener)
    const second = open({ key: "late" }, late.listener)
    open({ key: "other" }, other.listener)
    const [stream] = streams
    Watches.close(first)
    Watches.close(first)
    for (const watch_id of ["0", "1", "2"]) stream?.sink.message(response({ created: true, watch_id }))
    Watches.close(second)
    stream?.sink.message(response({ watch_id: "0", events: [event("Delete")] }))
    stream?.sink.message(response({ watch_id: "1", events: [event("Delete")] }))
    stream?.sink.message(response({ watch_id: "2", events: [event("Delete")] }))
    assert.deepStrictEqual([early.told, late.told], [[], ["standing at 7"]])
    assert.deepStrictEqual(other.told, ["standing at 7", "deleted"], "each answer is for its own watch")
    assert.deepStrictEqual(
      stream?.sent.flatMap(({ cancel_request }) => cancel_request?.watch_id ?? []),
      ["0", "1"]
    )
  })

  it("tells every listener when the stream breaks, and opens another one when asked", () => {
    const { open, streams } = fake()
    const [standing, pending, closed, next] = [makeListener(), makeListener(), makeListener(), makeListener()]
    open({ key: "standing" }, standing.listener)
    Watches.close(open({ key: "closed" }, closed.listener))
    streams[0]?.sink.message(response({ created: true, watch_id: "0" }))
    const watch = open({ key: "pending" }, pending.listener)
    streams[0]?.sink.broken()
    assert.deepStrictEqual([standing.told, pending.told, closed.told], [["standing at 7", "broken"], ["broken"], []])
    open({ key: "next" }, next.listener)
    assert.strictEqual(streams.length, 2)
    Watches.close(watch)
    assert.strictEqual(streams[1]?.sent.length, 1, "what is closed after the break says nothing to the new stream")
    Watches.suspect(watch)
    assert.deepStrictEqual(next.told, [], "nor does what is suspected")
  })

  it("gives a connection up when a watch is not placed and nothing else came on its stream", () => {
    const { open, streams } = fake()
    const [a, b] = [makeListener(), makeListener()]
    const first = open({ key: "a" }, a.listener)
    open({ key: "b" }, b.listener)
    streams[0]?.sink.message(response({ created: true, watch_id: "1" }))
    Watches.suspect(first)
    assert.isFalse(streams[0]?.discarded, "the server is slow")
    Watches.suspect(open({ key: "c" }, makeListener().listener))
    assert.isTrue(streams[0]?.discarded, "the connection is silent")
    assert.deepStrictEqual([a.told, b.told], [["broken"], ["standing at 7", "broken"]])
  })

  it("tells of a watch that the server cancels, for a compaction for example", () => {
    const { open, streams } = fake()
    const [a, b] = [makeListener(), makeListener()]
    open({ key: "a", from: 1n }, a.listener)
    open({ key: "b" }, b.listener)
    streams[0]?.sink.message(response({ created: true, watch_id: "0" }))
    streams[0]?.sink.message(response({ created: true, watch_id: "1" }))
    streams[0]?.sink.message(response({ canceled: true, watch_id: "0", compact_revision: "9" }))
    assert.deepStrictEqual([a.told, b.told], [["standing at 7", "broken"], ["standing at 7"]])
  })

  it("takes a refusal for a token that ran out: the stream, which it sticks to, is not used again", () => {
    const { open, streams } = fake()
    const [a, b] = [makeListener(), makeListener()]
    open({ key: "a" }, a.listener)
    open({ key: "b" }, b.listener)
    streams[0]?.sink.message(
      response({ created: true, canceled: true, watch_id: "-1", cancel_reason: "etcdserver: permission denied" })
    )
    assert.strictEqual(streams[0]?.refusals, 1)
    assert.deepStrictEqual([a.told, b.told], [["broken"], ["broken"]])
  })
})
