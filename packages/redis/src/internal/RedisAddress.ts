/**
 * Addresses as people write them.
 */

/** A host and a port. */
export interface Address {
  readonly host: string
  readonly port: number
}

const pattern = /^(?:\[([0-9a-f:.]*:[0-9a-f:.]*(?:%[\w.~-]+)?)\]|([^\s:/@[\]]+))(?::(\d{1,5}))?$/i

/** Reads `host`, `host:port`, `[::1]` or `[::1]:port`; `undefined` if it is none of them. */
export const parse = (text: string, defaultPort: number): Address | undefined => {
  const match = pattern.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = match?.[3] === undefined ? defaultPort : Number(match[3])
  return host === undefined || port < 1 || port > 65_535 ? undefined : { host, port }
}
