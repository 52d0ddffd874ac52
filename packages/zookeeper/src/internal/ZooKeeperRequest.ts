// Whoever compiles this file from its source needs the declarations, too.
// oxlint-disable-next-line typescript/triple-slash-reference
/// <reference path="./node-zookeeper-client.d.ts" />
/**
 * Requests to the server and its replies. They are built here and not by the methods of the driver's client, because
 * these hide the transaction id of a reply, and repeat a `create` after a lost reply when the client is so configured.
 */
import jute from "node-zookeeper-client/lib/jute/index.js"
import type { Response } from "./ZooKeeperDriver.ts"

const { OP_CODES, data, protocol } = jute

/** One request. */
export interface Call {
  readonly packet: object
  /** Sees the reply, or `undefined` when the connection ended before it, also when nobody waits for it any more. */
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
  /** The transaction that created the node. */
  readonly czxid: bigint
  /** The session that the node lives on. */
  readonly ephemeralOwner: bigint
}

export const codes = {
  ok: 0,
  noNode: -101,
  noAuth: -102,
  nodeExists: -110,
  notEmpty: -111,
  authFailed: -115
} as const

/** Who may do what with a node. */
export type Acl = ReadonlyArray<object>

const everything = 31

/** Everybody may do everything. */
export const openAcl: Acl = [new data.ACL(everything, new data.Id("world", "anyone"))]

/** Who has the credentials of this connection may do everything, others nothing. */
export const creatorAcl: Acl = [new data.ACL(everything, new data.Id("auth", ""))]

const nobody = Buffer.alloc(8)
const noData = Buffer.alloc(0)
const anyVersion = -1
const flags = { persistent: 0, ephemeralSequential: 3 } as const

const call = (type: number, payload: object, onReply?: Call["onReply"]): Call => ({
  packet: new jute.Request(new protocol.RequestHeader(0, type), payload),
  onReply
})

export const replyOf = ({ header, payload }: Response): Reply => ({
  code: header.err,
  zxid: header.zxid.readBigInt64BE(),
  path: payload?.path ?? "",
  children: payload?.children ?? [],
  czxid: (payload?.stat?.czxid ?? nobody).readBigInt64BE(),
  ephemeralOwner: (payload?.stat?.ephemeralOwner ?? nobody).readBigInt64BE()
})

/** A node that lives as long as the session; the server adds ten digits to its name. */
export const createInLine = (path: string, owner: string, acl: Acl, onReply: Call["onReply"]): Call =>
  call(OP_CODES.CREATE, new protocol.CreateRequest(path, Buffer.from(owner), acl, flags.ephemeralSequential), onReply)

/** A node that stays. */
export const create = (path: string, acl: Acl): Call =>
  call(OP_CODES.CREATE, new protocol.CreateRequest(path, noData, acl, flags.persistent))

export const remove = (path: string): Call => call(OP_CODES.DELETE, new protocol.DeleteRequest(path, anyVersion))

export const exists = (path: string): Call => call(OP_CODES.EXISTS, new protocol.ExistsRequest(path, false))

export const children = (path: string): Call =>
  call(OP_CODES.GET_CHILDREN2, new protocol.GetChildren2Request(path, false))

/** Leaves a watch if the node is there. (`exists` would leave one also if it is not, and none can be taken back.) */
export const watch = (path: string): Call => call(OP_CODES.GET_DATA, new protocol.GetDataRequest(path, true))
