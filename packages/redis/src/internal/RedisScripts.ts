/**
 * The verbs as Lua scripts. Each is atomic, asks only the server's clock, and may be sent twice.
 *
 * KEYS: the lock, its line, its waiters, its fence, and the void mark of this attempt. ARGV[1] is the owner.
 *
 * Numbers are printed with `%.0f`: `tostring` and `..` turn the 16 digits of a time in microseconds into 1.79e+15. In a
 * full server the first write decides: one that needs no memory (DEL, PEXPIRE, ZREM) lets the rest of the script pass.
 */
import * as Crypto from "node:crypto"

/** A script, and the name under which a server that has seen it keeps it. */
export interface Script {
  readonly source: string
  readonly sha1: string
}

/** For how long a waiter counts as alive after its last sign, in milliseconds. */
export const livenessMillis = 1800

/** For how long a key is kept for the waiter it was handed to, until that one confirms; in milliseconds. */
export const handOverMillis = 1200

/** For how long a fencing token outlives its lease, in milliseconds. */
export const fenceMillis = 3_600_000

/** What the first element of `acquire`'s answer says. */
export const Code = { waiting: 0, granted: 1, stale: 2, void: 3 } as const

const prelude = `
local K, line, waiters, fence, void = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local owner = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function text(n) return string.format('%.0f', n) end

-- The next token: the time, or one more than the last if the clock was set back.
local function mint(ttl)
  local last = tonumber(redis.call('GET', fence)) or 0
  local token = text(math.max(last + 1, now))
  redis.call('SET', fence, token, 'PX', text(ttl + ${fenceMillis}))
  return token
end

local function leave(who)
  redis.call('ZREM', line, who)
  redis.call('HDEL', waiters, who)
end

-- Prolongs the lease of its holder; answers its token.
local function prolong(ttl)
  redis.call('PEXPIRE', K, text(ttl))
  local token = redis.call('GET', fence)
  if not token then return mint(ttl) end
  redis.call('PEXPIRE', fence, text(ttl + ${fenceMillis}))
  return token
end
`

// The key is free. It goes to the first who is alive: to us by the answer, to another by a message on its process'
// channel. Where it counts, one whom nobody hears is passed over, and keeps its place. Answers who got it, and whether
// anybody alive was seen. A time of life further ahead than any that is ever set was written before the clock was set
// back.
const handOver = `
local function handOver(me, counted)
  local place, alive = 0, false
  while true do
    local who = redis.call('ZRANGE', line, place, place)[1]
    if not who then return nil, alive end
    local record = redis.call('HGET', waiters, who)
    local till, ttl, channel
    if record then till, ttl, channel = string.match(record, '^(%d+) (%d+) (.*)$') end
    till = tonumber(till)
    if not till or till < now or till > now + ${(livenessMillis + 1000) * 1000} then
      leave(who)
    else
      alive = true
      if who == me then return me, true end
      if redis.call('PUBLISH', channel, who) > 0 or not counted then
        leave(who)
        redis.call('SET', K, who, 'PX', text(math.min(ttl, ${handOverMillis})))
        mint(tonumber(ttl))
        return who, true
      end
      place = place + 1
    end
  end
end
`

const script = (source: string): Script => ({
  source,
  sha1: Crypto.createHash("sha1").update(source).digest("hex")
})

/**
 * Takes the key if it is free; with a channel, stands in line for it otherwise, or shows that it still does.
 *
 * ARGV: owner, ttl in ms, the time in µs after which this request is not valid any more, channel or '', ticket or '',
 * '1' where the receivers of a message can be counted. A request that arrives too late is refused, so a void mark need
 * not live longer than the requests that it is there for.
 *
 * Answers code, now in µs, and: granted: token; waiting in line: ticket, rank, remaining ms of the holder (-1: no limit).
 */
export const acquire: Script = script(`${prelude}${handOver}
local ttl, channel, ticket, counted = tonumber(ARGV[2]), ARGV[4], ARGV[5], ARGV[6] == '1'
if now > tonumber(ARGV[3]) then return {${Code.stale}, text(now)} end
if redis.call('EXISTS', void) == 1 then return {${Code.void}, text(now)} end

local holder = redis.call('GET', K)
if holder == owner then
  local token = prolong(ttl)
  leave(owner)
  return {${Code.granted}, text(now), token}
end
if not holder and redis.call('EXISTS', line) == 0 then
  local token = mint(ttl)
  redis.call('SET', K, owner, 'PX', text(ttl))
  return {${Code.granted}, text(now), token}
end

if channel ~= '' then
  local mine = redis.call('ZSCORE', line, owner)
  if mine then
    redis.call('PEXPIRE', line, ${livenessMillis * 4})
    ticket = text(mine)
  else
    if ticket == '' then
      local last = redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')[2]
      ticket = text(math.max(now, (tonumber(last) or 0) + 1))
    end
    redis.call('ZADD', line, ticket, owner)
    redis.call('PEXPIRE', line, ${livenessMillis * 4})
  end
  redis.call('HSET', waiters, owner, text(now + ${livenessMillis * 1000}) .. ' ' .. text(ttl) .. ' ' .. channel)
  redis.call('PEXPIRE', waiters, ${livenessMillis * 4})
end
if not holder then
  local who, alive = handOver(owner, counted)
  if who == owner or not alive then
    leave(owner)
    local token = mint(ttl)
    redis.call('SET', K, owner, 'PX', text(ttl))
    return {${Code.granted}, text(now), token}
  end
end
if channel == '' then return {${Code.waiting}, text(now)} end
return {${Code.waiting}, text(now), ticket, redis.call('ZRANK', line, owner), redis.call('PTTL', K)}
`)

/**
 * Prolongs the lease if it is still ours. ARGV: owner, ttl in ms. Answers the token, or nothing.
 */
export const renew: Script = script(`${prelude}
if redis.call('GET', K) ~= owner then return false end
return prolong(tonumber(ARGV[2]))
`)

/**
 * Gives the key back, straight to the next in line, and leaves the line.
 *
 * ARGV: owner, the time in µs until which a request of this attempt may still arrive and be valid (0: there is none),
 * '1' where the receivers of a message can be counted. Answers 1 if the key was ours.
 */
export const release: Script = script(`${prelude}${handOver}
local ours = redis.call('GET', K) == owner
if ours then redis.call('DEL', K) end
leave(owner)
if ours then handOver(nil, ARGV[3] == '1') end
local till = tonumber(ARGV[2])
if till > now then redis.call('SET', void, '1', 'PX', text((till - now) / 1000 + 1000)) end
return ours and 1 or 0
`)
