// A program that compiles this file from its source needs the declarations, too.
// oxlint-disable-next-line typescript/triple-slash-reference
/// <reference path="./node-zookeeper-client.d.ts" />
/**
 * Requests to the server and its replies. They are built here and not by the methods of the driver's client, because
 * these hide the transaction id of a reply, and repeat a `create` after a lost reply when the client is so configured.
 */
import type { Response } from "node-zookeeper-client"
import jute from "node-zookeeper-client/lib/jute/index.js"

const { OP_CODES, data, protocol } = jute

/** One request. */
export interface Call {
  readonly packet: object
  /** Gets the reply, or `undefined` when the connection ended before it, also when no fiber waits for it any more. */
  readonly onReply?: ((reply: Reply | undefined) => void) | undefined
}

/** What the server answered. */
export interface Reply {
  /** 0, or the server's number for what went wrong. */
  readonly code: number
  /** The latest transaction that the answering server has applied: for a write, that write. */
  readonly zxid: bigint
  readonly path: string
  readonly children: ReadonlyArray<string>
  readonly data: string
  /** The transaction that created the node. */
  readonly czxid: bigint
  /** How often the node's data was written since. */
  readonly version: number
}

/** The rights to a node. */
export type Acl = ReadonlyArray<object>

const rights = { read: 1, all: 31 } as const

const anyone = new data.Id("world", "anyone")
const creator = new data.ACL(rights.all, new data.Id("auth", ""))

/** Nodes are open to everyone, to their creator only, or may be read by everyone else. */
export const acls = {
  open: [new data.ACL(rights.all, anyone)],
  private: [creator],
  readable: [creator, new data.ACL(rights.read, anyone)]
} satisfies Record<string, Acl>

const never = Buffer.alloc(8)
const noData = Buffer.alloc(0)
const anyVersion = -1
const flags = { persistent: 0, ephemeralSequential: 3, container: 4 } as const

const call = (type: number, payload: object, onReply?: Call["onReply"]): Call => ({
  packet: new jute.Request(new protocol.RequestHeader(0, type), payload),
  onReply
})

export const replyOf = ({ header, payload }: Response): Reply => ({
  code: header.err,
  zxid: header.zxid.readBigInt64BE(),
  path: payload?.path ?? "",
  children: payload?.children ?? [],
  data: payload?.data?.toString() ?? "",
  czxid: (payload?.stat?.czxid ?? never).readBigInt64BE(),
  version: payload?.stat?.version ?? 0
})

/** A node that lives as long as the session; the server adds ten digits to its name. */
export const createInLine = (path: string, owner: string, acl: Acl, onReply: Call["onReply"]): Call =>
  call(OP_CODES.CREATE, new protocol.CreateRequest(path, Buffer.from(owner), acl, flags.ephemeralSequential), onReply)

/** A node that stays. */
export const create = (path: string, acl: Acl): Call =>
  call(OP_CODES.CREATE, new protocol.CreateRequest(path, noData, acl, flags.persistent))

const createContainerType = 19
/** Behind the length and the number of the request. */
const typeOffset = 8

/**
 * A node that the server removes some time after its last child has gone. The driver does not know this type of
 * request: it is written into the bytes of a plain create, whose answer begins in the same way.
 */
export const createContainer = (path: string, acl: Acl): Call => {
  const header = new protocol.RequestHeader(0, OP_CODES.CREATE)
  const packet = new jute.Request(header, new protocol.CreateRequest(path, noData, acl, flags.container))
  const toBuffer = packet.toBuffer.bind(packet)
  packet.toBuffer = () => {
    const bytes = toBuffer()
    bytes.writeInt32BE(createContainerType, typeOffset)
    return bytes
  }
  return { packet }
}

export const remove = (path: string): Call => call(OP_CODES.DELETE, new protocol.DeleteRequest(path, anyVersion))

export const children = (path: string): Call =>
  call(OP_CODES.GET_CHILDREN2, new protocol.GetChildren2Request(path, false))

export const read = (path: string): Call => call(OP_CODES.GET_DATA, new protocol.GetDataRequest(path, false))

/**
 * Reads, and leaves a watch if the node is there. (`exists` would leave one also if it is not, and none can be removed.)
 */
export const watch = (path: string): Call => call(OP_CODES.GET_DATA, new protocol.GetDataRequest(path, true))

/** Fails when the node is not there. */
export const write = (path: string, text: string): Call =>
  call(OP_CODES.SET_DATA, new protocol.SetDataRequest(path, Buffer.from(text), anyVersion))
