/**
 * From the options of the backend to a driver, or a sentence that says what is wrong with them.
 */
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type { Redis } from "ioredis"
import type { Options } from "../RedisLock.ts"
import type { Address } from "./RedisAddress.ts"
import * as RedisAddress from "./RedisAddress.ts"
import * as RedisDriver from "./RedisDriver.ts"

const defaultPort = { single: 6379, cluster: 6379, sentinel: 26379 }

const addressesOf = (
  options: Options,
  port: number
): Result.Result<readonly [Address, ...ReadonlyArray<Address>], string> => {
  const [first, ...others] = options.addrs ?? [`localhost:${port}`]
  if (first === undefined) return Result.fail("addrs is empty")
  const parse = (addr: string) =>
    Result.fromNullishOr(
      RedisAddress.parse(addr, port),
      () => `"${addr}" is no address; expected host, host:port or [ipv6]:port`
    )
  return Result.flatMap(
    parse(first),
    (address) => Result.map(Result.all(others.map(parse)), (rest) => [address, ...rest] as const)
  )
}

const loginOf = ({ db, password, tls, username }: Options): RedisDriver.Login => ({
  username,
  password: password && Redacted.value(password),
  db,
  tls: tls === true ? {} : tls === false ? undefined : tls
})

/** What to connect to. */
export interface Target {
  readonly driver: RedisDriver.Driver
  /** The name of the master, and those who tell of another one. */
  readonly watched?: { readonly masterName: string, readonly sentinels: ReadonlyArray<Redis> } | undefined
}

/** Drivers that are not connected yet. */
export const open = (options: Options, limitMillis: number): Result.Result<Target, string> => {
  const { addrs, db = 0, masterName, mode = "single", sentinelPassword, sentinelUsername } = options
  if (!Number.isInteger(db) || db < 0) return Result.fail("db has to be a whole number from 0 on")
  if (mode === "cluster" && db !== 0) return Result.fail("a cluster has only the database 0")
  if (mode === "single" && addrs !== undefined && addrs.length > 1) {
    return Result.fail(`mode "single" takes one address, and has ${addrs.length}; should mode be "cluster"?`)
  }
  if (mode === "sentinel" && masterName === undefined) return Result.fail(`mode "sentinel" needs masterName`)
  if (mode !== "sentinel" && masterName !== undefined) return Result.fail(`masterName is for mode "sentinel"`)

  const login = loginOf(options)
  return Result.map(addressesOf(options, defaultPort[mode]), ([address, ...others]): Target => {
    if (mode === "cluster") return { driver: RedisDriver.cluster([address, ...others], login, limitMillis) }
    if (masterName === undefined) return { driver: RedisDriver.single(address, login, limitMillis) }
    const watch = {
      masterName,
      sentinels: [address, ...others],
      username: sentinelUsername,
      password: sentinelPassword && Redacted.value(sentinelPassword)
    }
    return {
      driver: RedisDriver.sentinel(watch, login, limitMillis),
      watched: { masterName, sentinels: RedisDriver.toSentinels(watch, login, limitMillis) }
    }
  })
}
