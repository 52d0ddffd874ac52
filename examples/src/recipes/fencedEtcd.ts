/**
 * The same for data in etcd: a transaction that compares the stored token and writes. etcd compares values as text, and
 * nothing is true of the value of a key that does not exist, so the first write has a transaction of its own.
 */
import type { Lease } from "@dlock/core"
import { Effect } from "effect"
import type { Etcd3 } from "etcd3"

/** `false`: a later holder of the key has written. */
export const save = (client: Etcd3, lease: Lease, name: string, body: string): Effect.Effect<boolean> => {
  const token = lease.fencingToken.toString().padStart(20, "0")
  const write = [client.put(`${name}/token`).value(token), client.put(`${name}/body`).value(body)]
  const first = client.if(`${name}/token`, "Version", "==", 0).then(...write)
  // There is "<" and no "<=": the same lease may write again.
  const later = client.if(`${name}/token`, "Value", "<", `${token}0`).then(...write)
  return Effect.gen(function*() {
    if ((yield* Effect.promise(() => first.commit())).succeeded) return true
    return (yield* Effect.promise(() => later.commit())).succeeded
  })
}
