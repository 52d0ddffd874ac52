/**
 * The same for an object store that knows conditional writes (`If-Match`, `If-None-Match`): S3, Google Cloud Storage, Azure.
 */
import type { Lease } from "@dlock/core"
import { Effect } from "effect"

/** `false`: a later holder of the key has written, or writes now. The token travels as metadata of the object. */
export const save = (url: string, lease: Lease, body: string): Effect.Effect<boolean> =>
  Effect.promise(async (signal) => {
    const now = await fetch(url, { method: "HEAD", signal })
    const etag = now.headers.get("etag")
    if (BigInt(now.headers.get("x-amz-meta-token") ?? 0) > lease.fencingToken) return false
    // Between the look and the write another may have written: then the ETag is another one, and this is refused.
    const condition: Record<string, string> = etag === null ? { "if-none-match": "*" } : { "if-match": etag }
    const headers = { ...condition, "x-amz-meta-token": lease.fencingToken.toString() }
    const written = await fetch(url, { method: "PUT", body, headers, signal })
    return written.ok
  })
