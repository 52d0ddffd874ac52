/**
 * The verbs as Lua scripts. Each is atomic, asks only the server's clock, and may be sent twice.
 *
 * KEYS, where nothing else is said: the lock, its line, its waiters, its fence, and the void mark of this attempt. ARGV:
 * the owner, the life of its lease and the life of its token in milliseconds, and then what each script adds.
 *
 * Numbers are printed with `%.0f`: `tostring` and `..` turn the 16 digits of a time in microseconds into 1.79e+15. In a
 * full server the first write decides: one that needs no memory (DEL, PEXPIRE, ZREM) lets the rest of the script pass.
 * What an uncontended lock does comes first and is kept short: every call costs half of what a whole bare command does.
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
const handOverMillis = 1200

/** For how long a fencing token outlives its lease, in milliseconds. */
export const fenceMillis = 3_600_000

/** How long the line is kept after the last sign of anybody in it, in milliseconds. */
const lineMillis = livenessMillis * 4

/** What the first element of an answer to `acquire` says. */
export const Code = { waiting: 0, granted: 1, stale: 2, void: 3 } as const

const names = `
local K, line, waiters, fence, void = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local owner, ttl, fencePx = ARGV[1], ARGV[2], ARGV[3]
`

const clock = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
`

const text = `
local function text(n) return string.format('%.0f', n) end
`

// The next token: the time, or one more than the last if the clock was set back. Texts of one length compare like the
// numbers that they are, and formatting a number is dear. Answers also whether the token is the time.
const mint = `
local function mint(px)
  local token, isTime = time[1] .. string.sub('00000' .. time[2], -6), true
  local last = redis.call('GET', fence)
  if last and not (#last == #token and last < token) then
    token = string.format('%.0f', math.max((tonumber(last) or 0) + 1, now))
    isTime = false
  end
  redis.call('SET', fence, token, 'PX', px)
  return token, isTime
end
`

// Prolongs the lease of its holder; answers its token.
const prolong = `
local function prolong()
  redis.call('PEXPIRE', K, ttl)
  local token = redis.call('GET', fence)
  if not token then return (mint(fencePx)) end
  redis.call('PEXPIRE', fence, fencePx)
  return token
end
`

const leave = `
local function leave(who)
  redis.call('ZREM', line, who)
  redis.call('HDEL', waiters, who)
end
`

// The key is free. It goes to the first who is alive: to us by the answer, to another by a message on its process'
// channel. Where receivers count, one whom nobody hears is passed over, and keeps its place. Answers who got it, and
// whether anybody alive was seen. A time of life further ahead than any that is ever set was written before the clock
// was set back.
const handOver = (countReceivers: boolean) => `
local function handOver(me)
  local place, alive = 0, false
  while true do
    local who = redis.call('ZRANGE', line, place, place)[1]
    if not who then return nil, alive end
    local record = redis.call('HGET', waiters, who)
    local till, theirTtl, channel
    if record then till, theirTtl, channel = string.match(record, '^(%d+) (%d+) (.*)$') end
    till = tonumber(till)
    if not till or till < now or till > now + ${(livenessMillis + 1000) * 1000} then
      leave(who)
    else
      alive = true
      if who == me then return me, true end
      local receivers = redis.call('PUBLISH', channel, who)
      if ${countReceivers ? "receivers > 0" : "true"} then
        leave(who)
        redis.call('SET', K, who, 'PX', math.min(theirTtl, ${handOverMillis}))
        mint(text(theirTtl + ${fenceMillis}))
        return who, true
      end
      place = place + 1
    end
  end
end
`

const script = (source: string): Script => ({ source, sha1: Crypto.createHash("sha1").update(source).digest("hex") })

const acquire = (countReceivers: boolean) =>
  script(`${names}${clock}
if now > tonumber(ARGV[4]) then return {${Code.stale}, time} end
${mint}
if redis.call('EXISTS', K, line, void) == 0 then
  local token, isTime = mint(fencePx)
  redis.call('SET', K, owner, 'PX', ttl)
  if isTime then return token end
  return {${Code.granted}, time, token}
end
if redis.call('EXISTS', void) == 1 then return {${Code.void}, time} end
${text}${leave}${prolong}${handOver(countReceivers)}
local holder = redis.call('GET', K)
if holder == owner then
  local token = prolong()
  leave(owner)
  return {${Code.granted}, time, token}
end

local channel, ticket = ARGV[5], ARGV[6]
if channel then
  local mine = redis.call('ZSCORE', line, owner)
  if mine then
    redis.call('PEXPIRE', line, ${lineMillis})
    ticket = text(mine)
  else
    if ticket == '' then
      local last = redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')[2]
      ticket = text(math.max(now, (tonumber(last) or 0) + 1))
    end
    redis.call('ZADD', line, ticket, owner)
    redis.call('PEXPIRE', line, ${lineMillis})
  end
  redis.call('HSET', waiters, owner, text(now + ${livenessMillis * 1000}) .. ' ' .. ttl .. ' ' .. channel)
  redis.call('PEXPIRE', waiters, ${lineMillis})
end
if not holder then
  local who, alive = handOver(owner)
  if who == owner or not alive then
    leave(owner)
    local token = mint(fencePx)
    redis.call('SET', K, owner, 'PX', ttl)
    return {${Code.granted}, time, token}
  end
end
if not channel then return {${Code.waiting}, time} end
return {${Code.waiting}, time, ticket, redis.call('ZRANK', line, owner), redis.call('PTTL', K)}
`)

// One key only: in a cluster a slot that is being moved answers for several keys only when it has all of them.
const renew = script(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
`)

const renewMany = script(`
local owners = redis.call('MGET', unpack(KEYS))
local answers = {}
for i, key in ipairs(KEYS) do
  answers[i] = owners[i] == ARGV[2 * i - 1] and redis.call('PEXPIRE', key, ARGV[2 * i]) or 0
end
return answers
`)

const confirm = script(`
local K, fence = KEYS[1], KEYS[2]
local owner, ttl, fencePx = ARGV[1], ARGV[2], ARGV[3]
if redis.call('GET', K) ~= owner then return false end
${clock}${mint}${prolong}
return prolong()
`)

const release = (countReceivers: boolean) =>
  script(`${names}
local isOurs = redis.call('GET', K) == owner
if isOurs then
  redis.call('DEL', K)
  if ARGV[4] == '0' and redis.call('EXISTS', line) == 0 then return 1 end
end
${clock}${mint}${text}${leave}${handOver(countReceivers)}
if isOurs then handOver(nil) else leave(owner) end
local till = tonumber(ARGV[4])
if till > now then redis.call('SET', void, '1', 'PX', text((till - now) / 1000 + 1000)) end
return isOurs and 1 or 0
`)

/** The scripts of a backend. */
export interface Scripts {
  /**
   * Takes the key if it is free; with a channel, stands in line for it otherwise, or shows that it still does.
   *
   * ARGV[4]: the time in µs after which this request is not valid any more; to stand in line, also the channel, and the
   * ticket or ''. A request that arrives too late is refused, so a void mark need not live longer than the requests
   * that it is there for.
   *
   * Answers the token alone, which is then the server's time in µs, or code, the server's time (s, µs), and: granted:
   * token; waiting in line: ticket, rank, remaining ms of the holder (-1: no limit).
   */
  readonly acquire: Script
  /** Prolongs the lease if it is still ours; answers 1 if it is. KEYS: the lock alone. */
  readonly renew: Script
  /** As `renew`, of many. KEYS: their locks. ARGV: owner and ttl of each. Answers 1 or 0 for each. */
  readonly renewMany: Script
  /** As `renew`, and prolongs the life of the token as well; answers the token, or nil. KEYS: the lock, its fence. */
  readonly confirm: Script
  /**
   * Gives the key back, straight to the next in line, and leaves the line. ARGV[4]: the time in µs until which a request
   * of this attempt may still arrive and be valid, or 0. Answers 1 if the key was ours.
   */
  readonly release: Script
}

/** `countReceivers`: PUBLISH answers how many hear it. Not so in a cluster, where one node knows only its own. */
export const make = (countReceivers: boolean): Scripts => ({
  acquire: acquire(countReceivers),
  renew,
  renewMany,
  confirm,
  release: release(countReceivers)
})
