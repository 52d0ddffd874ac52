/**
 * The verbs as Lua scripts. Each is atomic, asks only the server's clock, and may be sent twice. Each takes many locks at
 * a time, of which none knows of the others: what a program asks for in one turn of its event loop is one command.
 *
 * Numbers are printed with `%.0f`: `tostring` and `..` turn the 16 digits of a time in microseconds into 1.79e+15. In a
 * full server the first write decides: one that needs no memory (DEL, PEXPIRE, ZREM) lets the rest of the script pass.
 * What an uncontended lock does comes first and is kept short.
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

/** How long the line is kept after the last sign of anybody in it, in milliseconds. */
const lineMillis = livenessMillis * 4

/** What `acquire` answers for one lock that is not a token: a number, or the first element of a list. */
export const Code = { waiting: 0, granted: 1, stale: 2, void: 3 } as const

/** The ticket of one who does not stand in line. */
export const noTicket = "-"

const clock = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
`

const text = `
local function text(n) return string.format('%.0f', n) end
`

// The next token: the time, or one more than the last if the clock was set back. All locks of a server, or of a slot,
// have one counter. As many tokens as may be needed are reserved at once. A token is new also for a holder that asks
// again, for nothing here knows which one it has.
const mint = `
local last
local function mint(most)
  if not last then
    last = now - 1
    local stored = tonumber(redis.call('GETSET', fence, text(last + most)))
    if stored and stored > last then
      last = stored
      redis.call('SET', fence, text(last + most))
    end
  end
  last = last + 1
  return text(last)
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
        return who, true
      end
      place = place + 1
    end
  end
end
`

const script = (source: string): Script => ({ source, sha1: Crypto.createHash("sha1").update(source).digest("hex") })

// Begins with what one lock needs that nobody else wants, and with nothing that costs: texts of one length compare like the
// numbers that they are.
const acquire = (countReceivers: boolean) =>
  script(`
local call, keys, argv = redis.call, KEYS, ARGV
if #keys == 5 then
  local time = call('TIME')
  local token, till = time[1] .. string.sub('00000', #time[2]) .. time[2], argv[4]
  if #token == #till and token <= till and call('EXISTS', keys[2], keys[3], keys[5]) == 0 then
    local stored = call('GETSET', keys[1], token)
    if not stored or #stored == #token and stored < token then
      call('SET', keys[2], argv[2], 'PX', argv[3])
      return token
    end
    call('SET', keys[1], stored)
  end
end
${clock}${text}
local fence, size = KEYS[1], (#KEYS - 1) / 4
${mint}
local answers, isRest = {}, false
for i = 1, size do
  local at = 4 * i - 2
  if now > tonumber(ARGV[at + 2]) then
    answers[i] = ${Code.stale}
  elseif redis.call('EXISTS', KEYS[at], KEYS[at + 1], KEYS[at + 3]) == 0 then
    answers[i] = mint(size)
    redis.call('SET', KEYS[at], ARGV[at], 'PX', ARGV[at + 1])
  else
    answers[i], isRest = false, true
  end
end
answers[size + 1] = now
if not isRest then return answers end

local channel = ARGV[1]
local K, line, waiters, void, owner, ttl, ticket
${leave}${handOver(countReceivers)}
local function prolong()
  redis.call('PEXPIRE', K, ttl)
  leave(owner)
  return {${Code.granted}, mint(size)}
end
local function stand()
  local mine = redis.call('ZSCORE', line, owner)
  if mine then
    redis.call('PEXPIRE', line, ${lineMillis})
    ticket = text(mine)
  else
    if ticket == '' then
      local final = redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')[2]
      ticket = text(math.max(now, (tonumber(final) or 0) + 1))
    end
    redis.call('ZADD', line, ticket, owner)
    redis.call('PEXPIRE', line, ${lineMillis})
  end
  redis.call('HSET', waiters, owner, text(now + ${livenessMillis * 1000}) .. ' ' .. ttl .. ' ' .. channel)
  redis.call('PEXPIRE', waiters, ${lineMillis})
end
local function ask()
  if redis.call('ZSCORE', void, owner) then return ${Code.void} end
  local holder = redis.call('GET', K)
  if holder == owner then return prolong() end
  local stands = ticket ~= '${noTicket}'
  if stands then stand() end
  if not holder then
    local who, alive = handOver(owner)
    if who == owner or not alive then
      leave(owner)
      local token = mint(size)
      redis.call('SET', K, owner, 'PX', ttl)
      return token
    end
  end
  if not stands then return ${Code.waiting} end
  return {${Code.waiting}, ticket, redis.call('ZRANK', line, owner), redis.call('PTTL', K)}
end
for i = 1, size do
  if not answers[i] then
    local at = 4 * i - 2
    K, line, waiters, void = KEYS[at], KEYS[at + 1], KEYS[at + 2], KEYS[at + 3]
    owner, ttl, ticket = ARGV[at], ARGV[at + 1], ARGV[at + 3]
    answers[i] = ask()
  end
end
return answers
`)

// One key for each lock: in a cluster a slot that is being moved answers for several keys only when it has all of them.
const renew = script(`
local owners = redis.call('MGET', unpack(KEYS))
local answers = {}
for i, key in ipairs(KEYS) do
  answers[i] = owners[i] == ARGV[2 * i - 1] and redis.call('PEXPIRE', key, ARGV[2 * i]) or 0
end
return answers
`)

const confirm = script(`
local fence, K = KEYS[1], KEYS[2]
if redis.call('GET', K) ~= ARGV[1] then return {0} end
redis.call('PEXPIRE', K, ARGV[2])
${clock}${text}${mint}
return {mint(1)}
`)

const release = (countReceivers: boolean) =>
  script(`
local call, keys, argv, wasOurs = redis.call, KEYS, ARGV, false
if #keys == 4 and call('GET', keys[1]) == argv[1] then
  call('DEL', keys[1])
  if argv[2] == '0' and call('EXISTS', keys[2]) == 0 then return 1 end
  wasOurs = true
end
local answers, size, isRest = {}, #KEYS / 4, false
for i = 1, size do
  local k, a = 4 * i - 3, 2 * i
  if wasOurs or redis.call('GET', KEYS[k]) == ARGV[a - 1] then
    redis.call('DEL', KEYS[k])
    answers[i] = 1
  else
    answers[i] = 0
  end
  if answers[i] == 0 or ARGV[a] ~= '0' or redis.call('EXISTS', KEYS[k + 1]) == 1 then isRest = true end
end
if not isRest then return answers end
${clock}${text}
local K, line, waiters, void
${leave}${handOver(countReceivers)}
for i = 1, size do
  local k, owner, till = 4 * i - 3, ARGV[2 * i - 1], tonumber(ARGV[2 * i])
  K, line, waiters, void = KEYS[k], KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  if answers[i] == 0 then
    leave(owner)
    -- It may have been given the key just now, by another who gave it back.
    if redis.call('GET', K) == owner then
      redis.call('DEL', K)
      answers[i] = 1
    end
  end
  if answers[i] == 1 and redis.call('EXISTS', K) == 0 then handOver(nil) end
  if till > now then
    redis.call('ZREMRANGEBYSCORE', void, '-inf', text(now))
    redis.call('ZADD', void, ARGV[2 * i], owner)
    redis.call('PEXPIRE', void, text(math.max(redis.call('PTTL', void), (till - now) / 1000 + 1000)))
  end
end
return answers
`)

/** The scripts of a backend. What they answer is a list, with an element for each lock; of one lock it may be that alone. */
export interface Scripts {
  /**
   * Takes the key if it is free; with a ticket, stands in line for it otherwise, or shows that it still does.
   *
   * KEYS: the fence, and for each lock itself, its line, its waiters, its void marks. ARGV: the channel, and for each
   * lock the owner, its ttl in ms, the time in µs after which this request is not valid any more, and the ticket: '' to
   * get one, `noTicket` not to stand in line. A request that arrives too late is refused, so a void mark need not live
   * longer than the requests that it is there for.
   *
   * Answers for each lock the token, or a code: stale, void, waiting (but not in line), or a list: granted, to one who
   * had it before: a token; waiting in line: ticket, rank, remaining ms of the holder (-1: no limit). At the end the
   * server's time in µs, unless that is the token.
   */
  readonly acquire: Script
  /** Prolongs leases that are still ours; answers 1 for each that is. KEYS: the locks. ARGV: owner and ttl of each. */
  readonly renew: Script
  /** As `renew` for one lock, with a token: answers it, or 0. KEYS: the fence, the lock. ARGV: owner, ttl. */
  readonly confirm: Script
  /**
   * Gives the key back, straight to the next in line, and leaves the line. KEYS: for each lock itself, its line, its
   * waiters, its void marks. ARGV: for each the owner, and the time in µs until which a request of this attempt may
   * still arrive and be valid, or 0. Answers 1 for each key that was ours.
   */
  readonly release: Script
}

/** `countReceivers`: PUBLISH answers how many hear it. Not so in a cluster, where one node knows only its own. */
export const make = (countReceivers: boolean): Scripts => ({
  acquire: acquire(countReceivers),
  renew,
  confirm,
  release: release(countReceivers)
})
