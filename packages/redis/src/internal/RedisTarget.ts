/**
 * From the options of the backend to a driver, or a sentence that says what is wrong with them.
 */
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type { Options } from "../RedisLock.ts"
import type { Address } from "./RedisAddress.ts"
import * as RedisAddress from "./RedisAddress.ts"
import * as RedisDriver from "./RedisDriver.ts"

const defaultPort = { single: 6379, cluster: 6379, sentinel: 26379 }

const addressesOf = (options: Options, port: number): Result.Result<ReadonlyArray<Address>, string> => {
  const addrs = options.addrs ?? [`localhost:${port}`]
  if (addrs.length === 0) return Result.fail("addrs is empty")
  const addresses: Array<Address> = []
  for (const addr of addrs) {
    const address = RedisAddress.parse(addr, port)
    if (address === undefined) return Result.fail(`"${addr}" is no address; expected host, host:port or [ipv6]:port`)
    addresses.push(address)
  }
  return Result.succeed(addresses)
}

const loginOf = ({ db, password, tls, username }: Options): RedisDriver.Login => ({
  username,
  password: password && Redacted.value(password),
  db,
  tls: tls === true ? {} : tls === false ? undefined : tls
})

/** A driver that is not connected yet. */
export const open = (options: Options, limitMillis: number): Result.Result<RedisDriver.Driver, string> => {
  const mode = options.mode ?? "single"
  const { db = 0, masterName } = options
  if (!Number.isInteger(db) || db < 0) return Result.fail("db has to be a whole number from 0 on")
  if (mode !== "sentinel" && masterName !== undefined) return Result.fail(`masterName is for mode "sentinel"`)
  return Result.flatMap(addressesOf(options, defaultPort[mode]), (addresses) => {
    const login = loginOf(options)
    const [address] = addresses
    if (mode === "cluster") {
      if (db !== 0) return Result.fail("a cluster has only the database 0")
      return Result.succeed(RedisDriver.cluster(addresses, login, limitMillis))
    }
    if (mode === "sentinel") {
      if (masterName === undefined) return Result.fail(`mode "sentinel" needs masterName`)
      const { sentinelPassword, sentinelUsername } = options
      const watch = {
        masterName,
        sentinels: addresses,
        username: sentinelUsername,
        password: sentinelPassword && Redacted.value(sentinelPassword)
      }
      return Result.succeed(RedisDriver.sentinel(watch, login, limitMillis))
    }
    return address === undefined || addresses.length > 1
      ? Result.fail(`mode "single" takes one address, and has ${addresses.length}; should mode be "cluster"?`)
      : Result.succeed(RedisDriver.single(address, login, limitMillis))
  })
}
