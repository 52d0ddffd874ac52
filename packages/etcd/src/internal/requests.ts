/**
 * The transactions of the lock, and what their answers mean. Each may be sent twice without harm.
 */
import type { Inspection } from "@dlock/core/LockBackend"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type {
  ICompare,
  IDeleteRangeRequest,
  IKeyValue,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
  IResponseOp,
  ITxnRequest,
  ITxnResponse
} from "etcd3"
import * as names from "./names.ts"

const bytes = (text: string): Buffer => Buffer.from(text, "utf8")

const noValue = Buffer.alloc(0)

const createdAt = (key: string, revision: string, rangeEnd?: string): ICompare => ({
  key: bytes(key),
  target: "Create",
  result: "Equal",
  create_revision: revision,
  ...(rangeEnd !== undefined && { range_end: bytes(rangeEnd) })
})

const put = (key: string, lease: string): IRequestOp => ({
  request_put: { key: bytes(key), value: noValue, lease }
})

const remove = (key: string): IRequestOp => ({ request_delete_range: { key: bytes(key) } })

const get = (key: string): IRequestOp => ({ request_range: { key: bytes(key), limit: 1 } })

const inLine = (line: string, which: Partial<IRangeRequest>): IRangeRequest => ({
  key: bytes(line),
  range_end: bytes(names.endOf(line)),
  sort_target: "Create",
  keys_only: true,
  ...which
})

const oldest = (line: string): IRequestOp => ({ request_range: holder(line) })

const newest = (line: string, before?: bigint): IRequestOp => ({
  request_range: inLine(line, {
    sort_order: "Descend",
    limit: 1,
    ...(before !== undefined && { max_create_revision: (before - 1n).toString() })
  })
})

const keyValue = (response: IResponseOp | undefined): IKeyValue | undefined => response?.response_range?.kvs[0]

const keyOf = (kv: IKeyValue | undefined): string | undefined => kv?.key.toString("utf8")

/** The token of a transaction that has put a key. */
export const revisionOf = ({ header }: ITxnResponse): bigint => BigInt(header.revision)

/** A request as the server has it. */
export interface Standing {
  readonly revision: bigint
  /** The key just before ours; none: we hold the lock. */
  readonly predecessor: string | undefined
  /** The revision of the store at which this was so. */
  readonly at: bigint
}

/** The keys of one request. */
export interface Keys {
  readonly line: string
  readonly place: string
  readonly mark: string
  readonly lease: string
}

/** Holds the lock if the line is empty and the request was not withdrawn. */
export const take = ({ lease, line, mark, place }: Keys): ITxnRequest => ({
  compare: [createdAt(mark, "0"), createdAt(line, "0", names.endOf(line))],
  success: [put(place, lease)],
  failure: [oldest(line)]
})

/** The create revision if the lock is held; also when it was an earlier copy of this transaction that took it. */
export const taken = (response: ITxnResponse, { place }: Keys): bigint | undefined => {
  if (response.succeeded) return revisionOf(response)
  const holder = keyValue(response.responses[0])
  return holder !== undefined && keyOf(holder) === place ? BigInt(holder.create_revision) : undefined
}

/** Enters the line. The newest is read before the own key is put, so it is the one to wait for. */
export const enter = ({ lease, line, mark, place }: Keys): ITxnRequest => ({
  compare: [createdAt(mark, "0"), createdAt(place, "0")],
  success: [newest(line), put(place, lease)],
  failure: [get(place)]
})

/** Removes the key of a holder and enters the line, both or neither. The answer is read as that to `enter`. */
export const handOver = (own: Keys, holder: string, revision: bigint): ITxnRequest => {
  const { compare = [], failure = [], success = [] } = enter(own)
  return {
    compare: [createdAt(holder, revision.toString()), ...compare],
    // The newest key is read when the holder's is removed already.
    success: [remove(holder), ...success],
    failure
  }
}

/** `undefined`: the request was withdrawn. No predecessor told: an earlier copy has entered, look where it stands. */
export const entered = (response: ITxnResponse): Standing | Pick<Standing, "revision"> | undefined => {
  const kv = response.responses.map(keyValue).find(Predicate.isNotUndefined)
  const at = revisionOf(response)
  if (response.succeeded) return { revision: at, predecessor: keyOf(kv), at }
  return kv === undefined ? undefined : { revision: BigInt(kv.create_revision) }
}

/** Which key is before ours, if ours still stands in line. */
export const look = ({ line, place }: Keys, revision: bigint): ITxnRequest => ({
  compare: [createdAt(place, revision.toString())],
  success: [newest(line, revision)],
  failure: []
})

/** `undefined`: our key is gone. */
export const looked = (response: ITxnResponse, revision: bigint): Standing | undefined =>
  response.succeeded
    ? { revision, predecessor: keyOf(keyValue(response.responses[0])), at: revisionOf(response) }
    : undefined

/** Whether our key is there, and another one in its line. */
export const check = ({ line, place }: Keys, revision: bigint): ITxnRequest => ({
  compare: [createdAt(place, revision.toString())],
  success: [newest(line)],
  failure: []
})

/** `undefined`: our key is gone. */
export const checked = (response: ITxnResponse, { place }: Keys): { readonly isWanted: boolean } | undefined =>
  response.succeeded ? { isWanted: keyOf(keyValue(response.responses[0])) !== place } : undefined

/**
 * Writes our key again, and checks as `check` does: the revision of the write is the next token, and lies below those of
 * all later grants.
 */
export const pass = ({ lease, line, place }: Keys, revision: bigint): ITxnRequest => ({
  compare: [createdAt(place, revision.toString())],
  success: [newest(line), put(place, lease)],
  failure: []
})

/** Removes what is known to be ours. */
export const release = ({ place }: Keys, revision: bigint): ITxnRequest => ({
  compare: [createdAt(place, revision.toString())],
  success: [remove(place)],
  failure: []
})

/** Removes what may be ours now or later: a copy of `take` or `enter` that is still on its way meets the mark. */
export const withdraw = ({ lease, mark, place }: Keys): ITxnRequest => ({
  compare: [],
  success: [remove(place), put(mark, lease)],
  failure: []
})

/** As `withdraw`, on a server that has no space for the mark: such a server refuses the late copy too. */
export const withdrawOnly = ({ place }: Keys): ITxnRequest => ({
  compare: [],
  success: [remove(place)],
  failure: []
})

export const withdrew = ({ responses }: ITxnResponse): boolean =>
  (responses[0]?.response_delete_range?.deleted ?? "0") !== "0"

/** Never puts, and is refused by every server that refuses puts: one without a majority, or without space. */
export const ping = (root: string): ITxnRequest => ({
  compare: [{ key: bytes(names.ping(root)), target: "Version", result: "Less", version: "0" }],
  success: [{ request_put: { key: bytes(names.ping(root)), value: noValue } }],
  failure: []
})

/** Everything in the line, in order. */
export const inspect = (line: string): IRangeRequest => inLine(line, { sort_order: "Ascend" })

/** The first in the line. */
export const holder = (line: string): IRangeRequest => inLine(line, { sort_order: "Ascend", limit: 1 })

/** The holder and the waiters, without the token, which the store does not keep; `remaining` is that of the holder's lease, in milliseconds. */
export const inspected = (
  line: string,
  { kvs }: IRangeResponse,
  remaining: number | undefined
): Inspection => {
  const [holder, ...waiting] = kvs
  if (holder === undefined) return { holder: Option.none(), waiting: [] }
  const place = holder.key.toString("utf8")
  return {
    holder: Option.some({ owner: names.ownerOf(line, place), remaining }),
    // A key of another program, such as `etcdctl`, is told as it stands in the line.
    waiting: waiting.map(({ key }) => key.toString("utf8")).map((place) =>
      names.ownerOf(line, place) ?? place.slice(line.length)
    )
  }
}

/** The holder's key, if this owner holds the lock. */
export const heldBy = (line: string, owner: string, { kvs }: IRangeResponse): IKeyValue | undefined => {
  const [holder] = kvs
  return holder !== undefined && names.ownerOf(line, holder.key.toString("utf8")) === owner ? holder : undefined
}

/** Removes one key, if it is still the one that was seen. */
export const revoke = ({ create_revision, key }: IKeyValue): ITxnRequest => ({
  compare: [{ key, target: "Create", result: "Equal", create_revision }],
  success: [{ request_delete_range: { key } satisfies IDeleteRangeRequest }],
  failure: []
})
