/**
 * What the server refuses, as our errors.
 */
import { type BackendReason, LockBackendError } from "@dlock/core/LockError"
import * as Data from "effect/Data"
import { codes } from "./ZooKeeperRequest.ts"

/** The name of the backend. */
export const backend = "zookeeper"

/** The connection ended before the answer came. Whether the server did what it was asked is unknown. */
export class Unanswered extends Data.TaggedError("Unanswered") {}

const words = new Map([
  [-3, "DataInconsistency"],
  [-5, "MarshallingError"],
  [-6, "Unimplemented: it may be too old"],
  [-8, "BadArguments"],
  [codes.noNode, "NoNode: the parents vanish again and again"],
  [codes.noAuth, "NoAuth: the credentials do not give the right to work under the prefix"],
  [-108, "NoChildrenForEphemerals: a level of the path is a node that belongs to a session"],
  [-114, "InvalidACL"],
  [-115, "AuthFailed"],
  [-125, "QuotaExceeded"],
  [-127, "Throttled"]
])

/** The server answered, and refused. */
export const refused = (operation: string, code: number): LockBackendError =>
  failed(
    operation,
    code === codes.noAuth || code === codes.authFailed ? "Unauthorized" : "Rejected",
    words.get(code) ?? `error ${code}`
  )

export const failed = (operation: string, reason: BackendReason, detail: string): LockBackendError =>
  new LockBackendError({ backend, operation, reason, detail })
