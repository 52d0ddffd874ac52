/**
 * Many watches on one stream. Everything here is synchronous: the listeners are told as the messages come in.
 */
import type { IWatchResponse } from "etcd3"
import type { EtcdClient, WatchStream } from "./client.ts"

/** What is told of the keys that are watched. */
export interface Listener {
  /** The watch stands: what happens after this revision of the store is not missed. */
  readonly onStanding: (revision: bigint) => void
  readonly onDeleted: (key: string) => void
  /** Only where puts are watched. */
  readonly onPut?: ((key: string) => void) | undefined
  /** The watch ended without being asked to; it does not come back. */
  readonly onBroken: () => void
}

/** What is watched. */
export interface Target {
  readonly key: string
  /** The end of a range of keys. Default: the key alone. */
  readonly end?: string | undefined
  /** The first revision. Default: from now on. */
  readonly from?: bigint | undefined
}

/** A watch that was asked for. */
export interface Watch {
  readonly shared: SharedStream
  readonly id: string
  /** How many messages had come on its stream before. */
  readonly heard: number
}

/** The watches of one stream. */
interface SharedStream {
  readonly stream: WatchStream
  /**
   * By the number of the request, which is the id that we ask for, and also the one that etcd's proxy gives: it gives
   * its own, in the order of the requests, and answers in any order.
   */
  readonly listeners: Map<string, Listener>
  next: number
  /** How many messages came. */
  heard: number
}

/** The stream of now, which is opened with the first watch. */
export interface Watches {
  readonly client: EtcdClient
  readonly commandTimeout: number
  current: SharedStream | undefined
}

const noPut = ["Noput" as const]

const bytes = (text: string): Buffer => Buffer.from(text, "utf8")

export const make = (client: EtcdClient, commandTimeout: number): Watches => ({
  client,
  commandTimeout,
  current: undefined
})

const connect = (watches: Watches): SharedStream => {
  const listeners = new Map<string, Listener>()
  const broken = (): void => {
    if (watches.current === shared) watches.current = undefined
    const all = [...listeners.values()]
    listeners.clear()
    for (const { onBroken } of all) onBroken()
  }
  const message = (response: IWatchResponse): void => told(watches, shared, response)
  const shared: SharedStream = { stream: watches.client.watch({ message, broken }), listeners, next: 0, heard: 0 }
  return shared
}

const told = (
  { commandTimeout }: Watches,
  shared: SharedStream,
  { canceled, created, events, header, watch_id }: IWatchResponse
): void => {
  shared.heard++
  if (created && canceled) return shared.stream.refused({ total: commandTimeout })
  const listener = shared.listeners.get(watch_id)
  if (listener === undefined) return
  if (canceled) {
    shared.listeners.delete(watch_id)
    return listener.onBroken()
  }
  if (created) return listener.onStanding(BigInt(header.revision))
  for (const { kv, type } of events) {
    const key = kv.key.toString("utf8")
    if (type === "Delete") listener.onDeleted(key)
    else listener.onPut?.(key)
  }
}

/** Asks for a watch. */
export const open = (watches: Watches, { end, from, key }: Target, listener: Listener): Watch => {
  const shared = watches.current ??= connect(watches)
  const id = `${shared.next++}`
  const watch: Watch = { shared, id, heard: shared.heard }
  shared.listeners.set(id, listener)
  shared.stream.write({
    create_request: {
      watch_id: id,
      key: bytes(key),
      ...(listener.onPut === undefined && { filters: noPut }),
      ...(end !== undefined && { range_end: bytes(end) }),
      ...(from !== undefined && { start_revision: from.toString() })
    }
  })
  return watch
}

/** Ends a watch; its listener is told nothing any more. */
export const close = ({ id, shared: { listeners, stream } }: Watch): void => {
  if (listeners.delete(id)) stream.write({ cancel_request: { watch_id: id } })
}

/**
 * A watch was not placed in time. If nothing came on its stream since it was asked for, the connection is not used
 * again, and all that share the stream end; otherwise the server is slow.
 */
export const suspect = ({ heard, shared }: Watch): void => {
  if (shared.heard === heard) shared.stream.discard()
}
