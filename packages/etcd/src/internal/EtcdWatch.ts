/**
 * Many watches for the deletion of one key each, on one stream. Everything here is synchronous: the listeners are told
 * as the messages come in.
 */
import type { IWatchResponse } from "etcd3"
import type { EtcdClient, WatchStream } from "./EtcdClient.ts"

/** Who is told what happens to a key. */
export interface Listener {
  /** The watch stands: a deletion after this revision of the store is not missed. */
  readonly onStanding: (revision: bigint) => void
  readonly onDeleted: () => void
  /** The watch ended without being asked to; it does not come back. */
  readonly onBroken: () => void
}

/** A watch on one key. */
export interface Watch {
  /** Ends it; the listener is told nothing any more. */
  readonly close: () => void
  /** Ends it and all that share its stream, whose connection is not used again. */
  readonly condemn: () => void
}

export interface EtcdWatch {
  /** Watches from now on, or from a revision. */
  readonly open: (key: string, from: bigint | undefined, listener: Listener) => Watch
  readonly close: () => void
}

interface Entry {
  /** None: not wanted any more. */
  listener: Listener | undefined
  /** Given by the server when the watch stands. */
  id: string | undefined
}

/** The watches of one stream. */
interface Station {
  readonly stream: WatchStream
  /** Asked for, in this order; the server answers in the same order. */
  readonly pending: Array<Entry>
  readonly standing: Map<string, Entry>
}

const noPut = ["Noput" as const]

export const make = (client: EtcdClient): EtcdWatch => {
  let current: Station | undefined

  const connect = (): Station => {
    const pending: Array<Entry> = []
    const standing = new Map<string, Entry>()
    const broken = (): void => {
      if (current === station) current = undefined
      for (const watch of [...pending, ...standing.values()]) watch.listener?.onBroken()
    }
    const created = (response: IWatchResponse): void => {
      const watch = pending.shift()
      if (watch === undefined) return
      // A token that has run out looks like a refusal, and sticks to the stream.
      if (response.canceled) {
        watch.listener?.onBroken()
        watch.listener = undefined
        return station.stream.condemn()
      }
      watch.id = response.watch_id
      if (watch.listener === undefined) return cancel(station, watch)
      standing.set(response.watch_id, watch)
      watch.listener.onStanding(BigInt(response.header.revision))
    }
    const message = (response: IWatchResponse): void => {
      if (response.created) return created(response)
      const watch = standing.get(response.watch_id)
      if (watch === undefined) return
      if (response.canceled) {
        standing.delete(response.watch_id)
        watch.listener?.onBroken()
      } else if (response.events.some(({ type }) => type === "Delete")) watch.listener?.onDeleted()
    }
    const station: Station = { stream: client.watch({ message, broken }), pending, standing }
    return station
  }

  const cancel = (station: Station, watch: Entry): void => {
    watch.listener = undefined
    if (watch.id === undefined) return
    station.standing.delete(watch.id)
    if (station === current) station.stream.write({ cancel_request: { watch_id: watch.id } })
  }

  return {
    open: (key, from, listener) => {
      const station = current ??= connect()
      const watch: Entry = { listener, id: undefined }
      station.pending.push(watch)
      station.stream.write({
        create_request: {
          key: Buffer.from(key, "utf8"),
          filters: noPut,
          ...(from !== undefined && { start_revision: from.toString() })
        }
      })
      return {
        close: () => {
          if (watch.listener !== undefined) cancel(station, watch)
        },
        condemn: () => station.stream.condemn()
      }
    },
    close: () => current?.stream.close()
  }
}
