/**
 * The transactions of the lock, and what their answers mean. Each may be sent twice without harm.
 */
import type { ICompare, IKeyValue, IRangeRequest, IRequestOp, IResponseOp, ITxnRequest, ITxnResponse } from "etcd3"
import { endOf } from "./EtcdKeys.ts"

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

const first = (line: string, which: Pick<IRangeRequest, "sort_order" | "max_create_revision">): IRequestOp => ({
  request_range: {
    key: bytes(line),
    range_end: bytes(endOf(line)),
    sort_target: "Create",
    limit: 1,
    keys_only: true,
    ...which
  }
})

const oldest = (line: string) => first(line, { sort_order: "Ascend" })

const newest = (line: string) => first(line, { sort_order: "Descend" })

const newestBefore = (line: string, revision: bigint) =>
  first(line, { sort_order: "Descend", max_create_revision: (revision - 1n).toString() })

const keyValue = (response: IResponseOp | undefined): IKeyValue | undefined => response?.response_range?.kvs[0]

const keyOf = (kv: IKeyValue | undefined): string | undefined => kv?.key.toString("utf8")

/** An attempt as the server has it. */
export interface Standing {
  readonly revision: bigint
  /** The key just before ours; none: we hold the lock. */
  readonly predecessor: string | undefined
  /** The revision of the store at which this was so. */
  readonly at: bigint
}

/** Where an attempt is to stand. */
export interface Spot {
  readonly line: string
  readonly place: string
  readonly mark: string
  readonly lease: string
}

/** Holds the lock if nobody holds it or waits for it. */
export const take = ({ lease, line, mark, place }: Spot): ITxnRequest => ({
  compare: [createdAt(mark, "0"), createdAt(line, "0", endOf(line))],
  success: [put(place, lease)],
  failure: [oldest(line)]
})

/** The create revision if the lock is held; also when it was an earlier copy of this transaction that took it. */
export const taken = (response: ITxnResponse, { place }: Spot): bigint | undefined => {
  if (response.succeeded) return BigInt(response.header.revision)
  const holder = keyValue(response.responses[0])
  return holder !== undefined && keyOf(holder) === place ? BigInt(holder.create_revision) : undefined
}

/** Enters the line. The newest is read before the own key is put, so it is the one to wait for. */
export const enter = ({ lease, line, mark, place }: Spot): ITxnRequest => ({
  compare: [createdAt(mark, "0"), createdAt(place, "0")],
  success: [newest(line), put(place, lease)],
  failure: [get(place)]
})

/** `undefined`: the attempt was given back. No predecessor said: an earlier copy has entered, look where we stand. */
export const entered = (response: ITxnResponse): Standing | Pick<Standing, "revision"> | undefined => {
  const kv = keyValue(response.responses[0])
  const at = BigInt(response.header.revision)
  if (response.succeeded) return { revision: at, predecessor: keyOf(kv), at }
  return kv === undefined ? undefined : { revision: BigInt(kv.create_revision) }
}

/** Who is before us, if we still stand in line. */
export const look = (line: string, place: string, revision: bigint): ITxnRequest => ({
  compare: [createdAt(place, revision.toString())],
  success: [newestBefore(line, revision)],
  failure: []
})

/** `undefined`: our key is gone. */
export const looked = (response: ITxnResponse, revision: bigint): Standing | undefined =>
  response.succeeded
    ? { revision, predecessor: keyOf(keyValue(response.responses[0])), at: BigInt(response.header.revision) }
    : undefined

/** Gives back what is known to be ours. */
export const leave = (place: string, revision: bigint): ITxnRequest => ({
  compare: [createdAt(place, revision.toString())],
  success: [remove(place)],
  failure: []
})

/** Gives back what may be ours now or later: a copy of `take` or `enter` that is still on its way meets the mark. */
export const annul = ({ lease, mark, place }: Spot): ITxnRequest => ({
  compare: [],
  success: [put(mark, lease), remove(place)],
  failure: []
})

export const annulled = (response: ITxnResponse): boolean =>
  (response.responses[1]?.response_delete_range?.deleted ?? "0") !== "0"
