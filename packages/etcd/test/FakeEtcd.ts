/**
 * A store that does what etcd does with the transactions and watches of this backend, one turn after it was asked, also
 * when the caller is gone by then.
 */
import { Clock, Effect } from "effect"
import type {
  ICompare,
  IKeyValue,
  IRangeRequest,
  IRequestOp,
  IResponseOp,
  ITxnRequest,
  ITxnResponse,
  IWatchRequest,
  IWatchResponse
} from "etcd3"
import type { EtcdClient, LeaseAnswer, WatchSink } from "../src/internal/client.ts"

interface Item {
  readonly created: bigint
  readonly lease: string
}

/** A watch on a key or a range. */
interface Watched {
  readonly id: string
  readonly key: string
  readonly end: string
  readonly sink: WatchSink
}

const text = (bytes: Buffer | string | undefined): string => bytes?.toString() ?? ""

const soon = <A>(run: () => A): Effect.Effect<A> =>
  Effect.callback((resume) => {
    queueMicrotask(() => {
      const answer = run()
      queueMicrotask(() => resume(Effect.succeed(answer)))
    })
  })

const headerAt = (revision: bigint) => ({ cluster_id: "1", member_id: "1", revision: `${revision}`, raft_term: "1" })

/** A message of a watch stream. */
export const notice = (revision: bigint, change: Partial<IWatchResponse>): IWatchResponse => ({
  header: headerAt(revision),
  watch_id: "0",
  created: false,
  canceled: false,
  compact_revision: "0",
  cancel_reason: "",
  fragment: false,
  events: [],
  ...change
})

/** `isBusy`: another client writes right behind each watch that is placed. */
export const make = Effect.fnUntraced(function*(isBusy: boolean) {
  const clock = yield* Clock.Clock
  const items = new Map<string, Item>()
  const watches = new Map<string, Watched>()
  const streams = new Set<() => void>()
  let revision = 1n
  let numbers = 0
  let asked = 0
  let placing: "placed" | "unanswered" | "refused" = "placed"

  const headerNow = () => headerAt(revision)

  const keyValue = (key: string): IKeyValue => ({
    key: Buffer.from(key),
    create_revision: `${items.get(key)?.created ?? 0n}`,
    mod_revision: "0",
    version: "1",
    value: Buffer.alloc(0),
    lease: items.get(key)?.lease ?? "0"
  })

  const inRange = (from: string, to: string): ReadonlyArray<string> =>
    [...items.keys()].filter((key) => to === "" ? key === from : key >= from && key < to)

  const holds = ({ create_revision, key, range_end }: ICompare): boolean => {
    const found = inRange(text(key), text(range_end))
    const wanted = BigInt(create_revision ?? 0)
    return found.length === 0 ? wanted === 0n : found.every((one) => items.get(one)?.created === wanted)
  }

  const range = ({ key, limit, max_create_revision, range_end, sort_order }: IRangeRequest): IResponseOp => {
    const most = BigInt(max_create_revision ?? 0)
    const direction = sort_order === "Descend" ? -1 : 1
    const kvs = inRange(text(key), text(range_end)).map(keyValue)
      .filter(({ create_revision }) => most === 0n || BigInt(create_revision) <= most)
      .toSorted((a, b) => Number(BigInt(a.create_revision) - BigInt(b.create_revision)) * direction)
      .slice(0, Number(limit))
    return { response_range: { header: headerNow(), kvs, more: false, count: `${kvs.length}` } } as IResponseOp
  }

  const remove = (key: string): number => {
    if (!items.delete(key)) return 0
    for (const [number, watch] of watches) {
      if (watch.end === "" ? watch.key !== key : key < watch.key || key >= watch.end) continue
      const kv = { ...keyValue(key) }
      queueMicrotask(() =>
        watches.get(number)?.sink.message(
          notice(revision, { watch_id: watch.id, events: [{ type: "Delete", kv, prev_kv: kv }] })
        )
      )
    }
    return 1
  }

  const carryOut = ({ request_delete_range, request_put, request_range }: IRequestOp): IResponseOp => {
    if (request_range !== undefined) return range(request_range)
    if (request_put !== undefined) {
      const key = text(request_put.key)
      items.set(key, { created: items.get(key)?.created ?? revision, lease: `${request_put.lease}` })
      return { response_put: { header: headerNow() } } as IResponseOp
    }
    const deleted = remove(text(request_delete_range?.key))
    return {
      response_delete_range: { header: headerNow(), deleted: `${deleted}`, prev_kvs: [] }
    } as unknown as IResponseOp
  }

  const transact = ({ compare = [], failure = [], success = [] }: ITxnRequest): ITxnResponse => {
    asked++
    const succeeded = compare.every(holds)
    const steps = succeeded ? success : failure
    if (steps.some(({ request_range }) => request_range === undefined)) revision++
    const responses = steps.map(carryOut)
    return { header: headerNow(), succeeded, responses }
  }

  const lease = (id: string, ttl: number): LeaseAnswer => ({
    id,
    ttl,
    sentAt: Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  })

  const client: EtcdClient = {
    isGiven: false,
    now: () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6,
    probe: () => Effect.void,
    version: () => Effect.succeed("3.5.30"),
    range: () => Effect.die("not asked in these tests"),
    remaining: () => Effect.die("not asked in these tests"),
    grant: (seconds) => soon(() => lease(`${++numbers}`, seconds)),
    keepAlive: (id) => soon(() => lease(id, 30)),
    revoke: (id) =>
      soon(() => {
        for (const [key, item] of items) if (item.lease === id) remove(key)
      }),
    keysOf: (id) => soon(() => new Set([...items].flatMap(([key, item]) => item.lease === id ? [key] : []))),
    txn: (_operation, request) => soon(() => transact(request)),
    txnOnLease: (_operation, request) => soon(() => transact(request)),
    watch: (sink) => {
      const stream = ++numbers
      const own = new Set<string>()
      const answer = ({ cancel_request, create_request }: IWatchRequest) => {
        if (create_request !== undefined && placing !== "placed") {
          if (placing === "refused") close()
        } else if (create_request !== undefined) {
          const id = `${create_request.watch_id}`
          own.add(id)
          watches.set(`${stream}/${id}`, {
            id,
            key: text(create_request.key),
            end: text(create_request.range_end),
            sink
          })
          sink.message(notice(revision, { watch_id: id, created: true }))
          if (isBusy) revision++
        } else if (cancel_request !== undefined && watches.delete(`${stream}/${cancel_request.watch_id}`)) {
          sink.message(notice(revision, { watch_id: `${cancel_request.watch_id}`, canceled: true }))
        }
      }
      const close = () => {
        if (!streams.delete(close)) return
        for (const id of own) watches.delete(`${stream}/${id}`)
        sink.broken()
      }
      streams.add(close)
      const write = (request: IWatchRequest) => queueMicrotask(() => streams.has(close) && answer(request))
      return { write, close, discard: close, refused: close }
    }
  }

  return {
    client,
    /** The keys that are no marks. */
    places: () => [...items.keys()].filter((key) => !key.includes("%void")),
    watched: () => watches.size,
    /** How many transactions were asked for. */
    asked: () => asked,
    /** What becomes of watches that are asked for from now on. */
    place: (what: typeof placing) => {
      placing = what
    },
    /** Tells every watch that its key was deleted, as a proxy does that mixes up its watches. */
    mixUp: () => {
      for (const { id, key, sink } of watches.values()) {
        const kv = keyValue(items.has(key) ? key : inRange(key, `${key}\uffff`)[0] ?? key)
        sink.message(notice(revision, { watch_id: id, events: [{ type: "Delete", kv, prev_kv: kv }] }))
      }
    },
    breakStreams: () => {
      Array.from(streams).forEach((close) => close())
    }
  }
})
