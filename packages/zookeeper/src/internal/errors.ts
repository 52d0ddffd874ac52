/**
 * What the server answers instead of doing it, as our errors.
 */
import { Errors } from "@dlock/core/backend"
import type { BackendReason, LockBackendError } from "@dlock/core/LockError"

/** The name of the backend. */
export const backend = "zookeeper"

/** The numbers that the server answers with. */
export const codes = {
  ok: 0,
  connectionLoss: -4,
  unimplemented: -6,
  operationTimeout: -7,
  noNode: -101,
  noAuth: -102,
  nodeExists: -110,
  notEmpty: -111,
  sessionExpired: -112,
  authFailed: -115,
  sessionMoved: -118,
  requestTimeout: -122,
  saslRequired: -124,
  throttled: -127
} as const

const passing: ReadonlySet<number> = new Set([
  codes.connectionLoss,
  codes.operationTimeout,
  codes.sessionExpired,
  codes.sessionMoved,
  codes.requestTimeout,
  codes.throttled
])

/** Whether the same request may succeed a moment later. */
export const passes = (code: number): boolean => passing.has(code)

const reasons = new Map<number, BackendReason>([
  [codes.unimplemented, "Unsupported"],
  [codes.noAuth, "Unauthorized"],
  [codes.authFailed, "Unauthorized"],
  [codes.saslRequired, "Unauthorized"]
])

const words = new Map<number, string>([
  [-3, "DataInconsistency"],
  [-5, "MarshallingError"],
  [codes.unimplemented, "Unimplemented: ZooKeeper 3.5.3 or newer is needed"],
  [-8, "BadArguments"],
  [codes.noNode, "NoNode"],
  [codes.noAuth, "NoAuth: the credentials give no right to work below the prefix"],
  [-108, "NoChildrenForEphemerals: a level of the path is a node that belongs to a session"],
  [-114, "InvalidACL: the server does not know this user or scheme"],
  [codes.authFailed, "AuthFailed"],
  [codes.saslRequired, "the server requires every session to authenticate: set username and password"],
  [-125, "QuotaExceeded"]
])

export const errors = Errors.make(backend)

/** The server answered, and refused. `at` is where the servers are. */
export const refused = (operation: string, code: number | undefined, at?: string): LockBackendError =>
  code === undefined
    ? errors.protocol(operation, { at, detail: "an answer is missing" })
    : errors.of(reasons.get(code) ?? "Rejected", operation, { at, detail: words.get(code) ?? `error ${code}` })
