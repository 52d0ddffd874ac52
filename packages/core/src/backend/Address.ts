/**
 * Addresses as people write them.
 *
 * @since 0.1.0
 */
import * as Result from "effect/Result"
import { show } from "../internal/config/show.ts"

/**
 * A host and a port, and the scheme that was written before them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Address {
  readonly host: string
  readonly port: number
  readonly scheme?: string
}

const pattern = /^(?:\[([0-9a-f:.]*:[0-9a-f:.]*(?:%[\w.~-]+)?)\]|([^\s:/,@[\]]+))(?::(\d+))?$/i

/**
 * Reads `host`, `host:port`, `[::1]` or `[::1]:port`, after one of the schemes if there are any. The failure is a sentence.
 *
 * @category parsing
 * @since 0.1.0
 */
export const parse = (
  text: string,
  { port: defaultPort, schemes = [] }: { readonly port: number, readonly schemes?: ReadonlyArray<string> | undefined }
): Result.Result<Address, string> => {
  const scheme = schemes.find((scheme) => text.toLowerCase().startsWith(`${scheme}://`))
  const rest = scheme === undefined ? text : text.slice(scheme.length + 3).replace(/\/$/, "")
  const [, ipv6, name, digits] = pattern.exec(rest) ?? []
  const host = ipv6 ?? name
  if (host === undefined) {
    return Result.fail(`${show(text)} is no address; expected host, host:port or [ipv6]:port`)
  }
  const port = digits === undefined ? defaultPort : Number(digits)
  return port >= 1 && port <= 65_535
    ? Result.succeed({ host, port, ...(scheme !== undefined && { scheme }) })
    : Result.fail(`the port of ${show(text)} is not from 1 to 65535`)
}

/**
 * `host:port`, or `[ipv6]:port`.
 *
 * @category formatting
 * @since 0.1.0
 */
export const format = ({ host, port }: Pick<Address, "host" | "port">): string =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`
