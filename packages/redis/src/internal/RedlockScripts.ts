/**
 * The verbs on one of N servers as Lua scripts: no line, because a line on each of N servers is N lines. Each is atomic,
 * asks only the server's clock, and may be sent twice. Each takes many locks at a time, and answers a list.
 *
 * Tokens are decimal texts; those of one length compare like the numbers that they are. Each lock has a last token of its
 * own: with one for all, what several clients propose for several locks would never be the same on all servers.
 */
import * as Crypto from "node:crypto"
import type { Script } from "./RedisScripts.ts"

/** For how long a fencing token outlives its lease, in milliseconds. */
export const fenceMillis = 3_600_000

/** What `take` answers that is not a token: a number, or the first element of a list. */
export const Code = { held: 0, stale: 1, void: 2 } as const

/** What `hold` answers. */
export const Held = { ours: 1, absent: 0, other: -1 } as const

const script = (source: string): Script => ({ source, sha1: Crypto.createHash("sha1").update(source).digest("hex") })

/**
 * Takes the key if it is free; prolongs it if it is ours. Begins with what one lock needs that nobody else wants, and with
 * nothing that costs.
 *
 * KEYS, for each: lock, fence, void mark. ARGV, for each: value, ttl in ms, life of the token in ms, the time in µs after
 * which this request is not valid any more, the least token.
 *
 * Answers for each the token, a code, or held with remaining ms of the holder (-1: no limit), and holder. At the end the
 * server's time in µs.
 */
export const take = script(`
local call, keys, argv = redis.call, KEYS, ARGV
local time = call('TIME')
if #keys == 3 then
  local now, till, least = time[1] .. string.sub('00000', #time[2]) .. time[2], argv[4], argv[5]
  if #now == #till and now <= till and call('EXISTS', keys[1], keys[3]) == 0 then
    local last = call('GET', keys[2])
    if not last or #last == #least and last < least then
      call('SET', keys[2], least, 'PX', argv[3])
      call('SET', keys[1], argv[1], 'PX', argv[2])
      return least
    end
  end
end
local now = time[1] * 1000000 + time[2]
local function take(K, fence, void, value, ttl, fencePx, till, least)
  if now > tonumber(till) then return ${Code.stale} end
  if redis.call('EXISTS', K, void) > 0 then
    local holder = redis.call('GET', K)
    if holder and holder ~= value then return {${Code.held}, redis.call('PTTL', K), holder} end
    if redis.call('EXISTS', void) == 1 then return ${Code.void} end
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
end
local answers, size = {}, #KEYS / 3
for i = 1, size do
  local k, a = 3 * i, 5 * i
  answers[i] = take(KEYS[k - 2], KEYS[k - 1], KEYS[k], ARGV[a - 4], ARGV[a - 3], ARGV[a - 2], ARGV[a - 1], ARGV[a])
end
answers[size + 1] = now
return answers
`)

/**
 * Prolongs the key if it is ours, and sees to it that the token is not less than ours. Never takes it.
 *
 * KEYS, for each: lock, fence. ARGV, for each: value, ttl in ms, life of the token in ms, token.
 */
export const hold = script(`
local function hold(K, fence, value, ttl, fencePx, token)
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
end
local answers = {}
for i = 1, #KEYS / 2 do
  local k, a = 2 * i, 4 * i
  answers[i] = hold(KEYS[k - 1], KEYS[k], ARGV[a - 3], ARGV[a - 2], ARGV[a - 1], ARGV[a])
end
return answers
`)

/**
 * Gives the key back if it is ours, and tells those who wait. DEL comes first: a full server refuses the rest.
 *
 * KEYS, for each: lock, void mark. ARGV, for each: value, the time in µs until which a request may still arrive and be
 * valid (0: there is none), the channel. Answers 1 for each key that was ours.
 */
export const release = script(`
local call, keys, argv = redis.call, KEYS, ARGV
if #keys == 2 and argv[2] == '0' then
  if call('GET', keys[1]) ~= argv[1] then return 0 end
  call('DEL', keys[1])
  redis.pcall('PUBLISH', argv[3], keys[1])
  return 1
end
local answers = {}
for i = 1, #KEYS / 2 do
  local K, void = KEYS[2 * i - 1], KEYS[2 * i]
  local value, till, channel = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
  local isOurs = redis.call('GET', K) == value
  if isOurs then
    redis.call('DEL', K)
    redis.pcall('PUBLISH', channel, K)
  end
  if till ~= '0' then
    local time = redis.call('TIME')
    local left = tonumber(till) - (time[1] * 1000000 + time[2])
    if left > 0 then redis.call('SET', void, '1', 'PX', string.format('%.0f', left / 1000 + 1000)) end
  end
  answers[i] = isOurs and 1 or 0
end
return answers
`)
