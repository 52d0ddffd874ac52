/**
 * What goes over the driver's socket, and how.
 */
import type { Driver, Manager } from "./ZooKeeperDriver.ts"

/**
 * Called before a request is sent. What is sent in one turn goes out in one write: of all that a request costs the
 * client, that is the dearest.
 */
export const gather = (manager: Manager): () => void => {
  let corked: Manager["socket"]
  const flush = (): void => {
    corked?.uncork()
    corked = undefined
  }
  return () => {
    const { socket } = manager
    if (socket === corked) return
    flush()
    corked = socket
    socket?.cork()
    // A tick would come before the microtask in which a local waiter sends its request behind a release.
    queueMicrotask(flush)
  }
}

const lengthBytes = 4

/** How long the frame is that begins here. */
const sizeOf = (bytes: Buffer): number =>
  bytes.length < lengthBytes ? Number.POSITIVE_INFINITY : lengthBytes + bytes.readInt32BE()

/** Has the driver read one frame at a time; `onError` is told what it throws. */
export const readFrames = ({ connectionManager: manager }: Driver, onError: (error: unknown) => void): void => {
  const read = manager.onSocketData
  const readOne = (frame: Buffer): void => {
    try {
      read.call(manager, frame)
    } catch (error) {
      onError(error)
    }
  }
  manager.onSocketData = (chunk) => {
    let rest = manager.pendingBuffer === null ? chunk : Buffer.concat([manager.pendingBuffer, chunk])
    manager.pendingBuffer = null
    for (let size = sizeOf(rest); rest.length >= size; size = sizeOf(rest)) {
      // Nothing of what comes in after nonsense can be believed.
      if (size < lengthBytes) manager.socket?.destroy()
      if (manager.socket?.destroyed === true) return
      readOne(rest.subarray(0, size))
      rest = rest.subarray(size)
    }
    if (rest.length > 0) manager.pendingBuffer = rest
  }
}
