/**
 * The verbs on one of N servers as Lua scripts: no line, because a line on each of N servers is N lines. Each is atomic,
 * asks only the server's clock, and may be sent twice.
 *
 * KEYS[1] is the lock. ARGV[1] is what we hold it as. Tokens are decimal texts; those of one length compare like the
 * numbers that they are.
 */
import * as Crypto from "node:crypto"
import type { Script } from "./RedisScripts.ts"

/** What the first element of an answer to `take` says that is not a token. */
export const Code = { held: 0, stale: 1, void: 2 } as const

/** What `hold` answers. */
export const Held = { ours: 1, absent: 0, other: -1 } as const

const script = (source: string): Script => ({ source, sha1: Crypto.createHash("sha1").update(source).digest("hex") })

/**
 * Takes the key if it is free; prolongs it if it is ours.
 *
 * KEYS: lock, fence, void mark. ARGV: value, ttl in ms, life of the token in ms, the time in µs after which this request
 * is not valid any more, the least token.
 *
 * Answers the token, or a code and: held: remaining ms of the holder (-1: no limit), holder; stale: the server's time.
 */
export const take = script(`
local K, fence, void = KEYS[1], KEYS[2], KEYS[3]
local value, ttl, fencePx, till, least = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local time = redis.call('TIME')
if time[1] * 1000000 + time[2] > tonumber(till) then return {${Code.stale}, time} end
if redis.call('EXISTS', K, void) > 0 then
  local holder = redis.call('GET', K)
  if holder and holder ~= value then return {${Code.held}, redis.call('PTTL', K), holder} end
  if redis.call('EXISTS', void) == 1 then return {${Code.void}} end
  if redis.call('PEXPIRE', fence, fencePx) == 1 then
    redis.call('PEXPIRE', K, ttl)
    return redis.call('GET', fence)
  end
end
local last = redis.call('GET', fence)
local token = least
if last and not (#last == #least and last < least) then
  token = string.format('%.0f', math.max((tonumber(last) or 0) + 1, tonumber(least)))
end
redis.call('SET', fence, token, 'PX', fencePx)
redis.call('SET', K, value, 'PX', ttl)
return token
`)

/**
 * Prolongs the key if it is ours, and sees to it that the token is not less than ours. Never takes it.
 *
 * KEYS: lock, fence. ARGV: value, ttl in ms, life of the token in ms, token.
 */
export const hold = script(`
local K, fence = KEYS[1], KEYS[2]
local value, ttl, fencePx, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local holder = redis.call('GET', K)
if not holder then return ${Held.absent} end
if holder ~= value then return ${Held.other} end
redis.call('PEXPIRE', K, ttl)
local last = redis.call('GET', fence)
if last and (#last > #token or (#last == #token and last >= token)) then
  redis.call('PEXPIRE', fence, fencePx)
else
  redis.call('SET', fence, token, 'PX', fencePx)
end
return ${Held.ours}
`)

/**
 * Gives the key back if it is ours, and tells those who wait. DEL comes first: a full server refuses the rest.
 *
 * KEYS: lock, void mark. ARGV: value, the time in µs until which a request may still arrive and be valid (0: there is
 * none), the channel. Answers 1 if the key was ours.
 */
export const release = script(`
local K, void = KEYS[1], KEYS[2]
local value, till = ARGV[1], tonumber(ARGV[2])
local isOurs = redis.call('GET', K) == value
if isOurs then
  redis.call('DEL', K)
  redis.pcall('PUBLISH', ARGV[3], K)
end
if till > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  if till > now then redis.call('SET', void, '1', 'PX', string.format('%.0f', (till - now) / 1000 + 1000)) end
end
return isOurs and 1 or 0
`)
