/**
 * The verbs as Lua scripts. Each is atomic, asks only the server's clock, and may be sent twice.
 *
 * Numbers are printed with `%.0f`: `tostring` and `..` turn the 16 digits of a time in microseconds into 1.79e+15. In a
 * full server the first write decides: one that needs no memory (DEL, PEXPIRE, ZREM, ZPOPMIN) lets the rest of the script
 * pass. Answers are texts, because a driver may be set up to turn numbers into texts.
 */
import * as Crypto from "node:crypto"

/** A script, and the name under which a server that has seen it keeps it. */
export interface Script {
  readonly source: string
  readonly sha1: string
  /**
   * Whether it takes many locks at a time, of which none knows of the others, and answers a list. Renewals do: 10,000 of
   * them cost the server and the client half of what a command for each does. For the other verbs it is a sixth or less.
   */
  readonly takesMany: boolean
}

export const script = (source: string, takesMany = false): Script => ({
  source,
  sha1: Crypto.createHash("sha1").update(source).digest("hex"),
  takesMany
})

/** For how long a waiter counts as alive after its last sign, in milliseconds. */
export const livenessMillis = 1800

/** For how long a key is kept for the waiter it was handed to, until that one confirms; in milliseconds. */
const handOverMillis = 1200

/** How long the line is kept after the last sign of a waiter in it, in milliseconds. */
const lineMillis = livenessMillis * 4

/** By how much longer a request is valid than its answer is waited for, in µs: cluster nodes do not have one clock. */
export const slackMicros = 1_000_000

/** The ticket of a request that does not stand in line. */
export const noTicket = "-"

/** What a message to a process begins with, before the owner that it is about. */
export const Message = { handed: "=", wanted: "?", revoked: "!" } as const

const clock = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function text(n) return string.format('%.0f', n) end
`

// The next tokens, as "first spare", of as many as are wished for. All locks of a server, or of a slot, have one counter.
// Tokens lie below the clock: above it the counter would run away from the time, and a server that loses its data would
// set tokens back. Only where the clock was set back are they ahead of it. A token is new also for a holder that asks
// again, because nothing here knows which one it has.
const mint = `
local function mint(wished)
  local stored = tonumber(redis.call('GETSET', fence, text(now))) or 0
  local first = math.max(stored, now - wished) + 1
  local spare = math.min(wished - 1, math.max(0, now - first))
  if first + spare > now then redis.call('SET', fence, text(first + spare)) end
  return text(first) .. ' ' .. text(spare)
end
`

const leave = `
local function leave()
  redis.call('ZREM', line, owner)
  redis.call('HDEL', waiters, owner)
end
`

// The key is free. It goes to the first that is alive: to us by the answer, to another by a message on the channel of its
// process. Where receivers count, one whose channel has none is passed over, and keeps its place. Answers the owner that got it, and
// whether any was passed over. A time of life further ahead than any that is ever set was written before the clock was
// set back. `popped` is what ZPOPMIN answered, if it was asked already.
const handOver = (countReceivers: boolean) => `
local function hears(channel, who)
  local receivers = redis.pcall('PUBLISH', channel, '${Message.handed}' .. who)
  return type(receivers) == 'number'${countReceivers ? " and receivers > 0" : ""}
end
local function handOver(me, popped)
  local passed, got = {}, nil
  while not got do
    popped = popped or redis.call('ZPOPMIN', line)
    local who, place = popped[1], popped[2]
    popped = nil
    if not who then break end
    local till, theirTtl, channel = string.match(redis.call('HGET', waiters, who) or '', '^(%d+) (%d+) (.*)$')
    till = tonumber(till)
    local alive = till and till >= now and till <= now + ${(livenessMillis + 1000) * 1000}
    if alive and who ~= me and not hears(channel, who) then
      passed[#passed + 1] = {place, who}
    else
      redis.call('HDEL', waiters, who)
      if alive then got = who end
      if alive and who ~= me then redis.call('SET', K, who, 'PX', math.min(theirTtl, ${handOverMillis})) end
    end
  end
  for _, waiter in ipairs(passed) do redis.call('ZADD', line, waiter[1], waiter[2]) end
  if #passed > 0 then redis.call('PEXPIRE', line, ${lineMillis}) end
  return got, #passed > 0
end
`

// Takes a place in line, or keeps it, and tells whether it is the first. A full server refuses newcomers, and keeps those
// in line. `final` is the last in line, if it was asked for.
const stand = `
local function stand(final)
  local isFirst
  if ticket == '' then
    isFirst = not final[1]
    ticket = text(math.max(now, (tonumber(final[2]) or 0) + 1))
    if redis.call('ZADD', line, 'NX', ticket, owner) == 0 then ticket = redis.call('ZSCORE', line, owner) end
    redis.call('PEXPIRE', line, ${lineMillis})
  else
    redis.call('PEXPIRE', line, ${lineMillis})
    redis.call('ZADD', line, 'NX', ticket, owner)
    isFirst = redis.call('ZRANGE', line, 0, 0)[1] == owner
  end
  redis.call('HSET', waiters, owner, text(now + ${livenessMillis * 1000}) .. ' ' .. ttl .. ' ' .. channel)
  redis.call('PEXPIRE', waiters, ${lineMillis})
  return isFirst
end
`

// Tells the holder's process that another waits. The holder may be one that the key was handed to and that is gone.
const tell = `
local function tell(holder)
  local theirs = redis.call('GET', holderChannel)
  if theirs then redis.pcall('PUBLISH', theirs, '${Message.wanted}' .. holder) end
end
`

// A key that is free, with no line and no void marks, needs nothing else. `others` counts what else there is: only then
// are the marks looked at.
const acquire = (countReceivers: boolean) =>
  script(`
local call = redis.call
local fence, K, line, waiters, void, holderChannel = unpack(KEYS)
local channel, owner, ttl, till, ticket, wished = unpack(ARGV)
${clock}${mint}
local others = call('EXISTS', K, line, void)
if now > tonumber(till) then return 'stale ' .. text(now) end
local function grant()
  local tokens = mint(tonumber(wished))
  call('SET', K, owner, 'PX', ttl)
  return 'granted ' .. tokens
end
if others == 0 then return grant() end
${leave}${handOver(countReceivers)}${stand}${tell}
local holder = call('GET', K)
local joins = ticket == ''
local final = joins and call('ZRANGE', line, -1, -1, 'WITHSCORES') or {}
if holder then others = others - 1 end
if final[1] then others = others - 1 end
if others > 0 and call('ZSCORE', void, owner) then return 'void' end
if holder == owner then
  call('PEXPIRE', K, ttl)
  leave()
  return 'granted ' .. mint(tonumber(wished))
end
local stands = ticket ~= '${noTicket}'
local isFirst = stands and stand(final)
if not holder then
  local got, wasPassed = handOver(owner)
  if got == owner or not got and not wasPassed then return grant() end
elseif joins and isFirst then
  tell(holder)
end
local theirs = holder and ' ' .. holder or ''
if not stands then return 'held' .. theirs end
return 'waiting ' .. ticket .. ' ' .. (isFirst and call('PTTL', K) or -1) .. theirs
`)

// One key for each lock: in a cluster a slot that is being moved answers for several keys only when it has all of them.
const renew = script(
  `
local owners = redis.call('MGET', unpack(KEYS))
local answers = {}
for i, key in ipairs(KEYS) do
  answers[i] = owners[i] == ARGV[2 * i - 1] and redis.call('PEXPIRE', key, ARGV[2 * i]) == 1 and 'ours' or 'gone'
end
return answers
`,
  true
)

const confirm = script(`
local fence, K = KEYS[1], KEYS[2]
if redis.call('GET', K) ~= ARGV[1] then return 'gone' end
redis.call('PEXPIRE', K, ARGV[2])
${clock}${mint}
return 'granted ' .. mint(tonumber(ARGV[3]))
`)

// DEL comes first: a full server refuses the rest. What is not a text is not ours.
const release = (countReceivers: boolean) =>
  script(`
local call = redis.call
local K, line, waiters, void, holderChannel = unpack(KEYS)
local owner, till = ARGV[1], tonumber(ARGV[2])
local isOurs, popped = redis.pcall('GET', K) == owner, {}
if isOurs then
  call('DEL', K, holderChannel)
  popped = call('ZPOPMIN', line)
  if not popped[1] and till == 0 then return 'released' end
end
${clock}${leave}${handOver(countReceivers)}
if popped[1] then handOver(nil, popped) end
if not isOurs then leave() end
if till > now then
  call('ZREMRANGEBYSCORE', void, '-inf', text(now))
  call('ZADD', void, ARGV[2], owner)
  call('PEXPIRE', void, text(math.max(call('PTTL', void), (till - now) / 1000 + 1000)))
end
return isOurs and 'released' or 'gone'
`)

const watch = script(`
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 'gone' end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
return redis.call('EXISTS', KEYS[2]) == 1 and 'wanted' or 'alone'
`)

const inspect = script(`
${clock}
local holder = redis.call('GET', KEYS[1])
local answers = {holder and 'held' or 'free', holder or '', text(redis.call('PTTL', KEYS[1]))}
for _, who in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local till = tonumber(string.match(redis.call('HGET', KEYS[3], who) or '', '^%d+'))
  if till and till >= now then answers[#answers + 1] = who end
end
return answers
`)

const revoke = (countReceivers: boolean) =>
  script(`
local K, line, waiters, holderChannel, owner = KEYS[1], KEYS[2], KEYS[3], KEYS[5], ARGV[1]
if redis.call('GET', K) ~= owner then return 'gone' end
local channel = redis.call('GET', holderChannel)
redis.call('DEL', K, holderChannel)
if channel then redis.pcall('PUBLISH', channel, '${Message.revoked}' .. owner) end
${clock}${handOver(countReceivers)}
handOver(nil)
return 'revoked'
`)

/** The scripts of a backend. */
export interface Scripts {
  /**
   * Takes the key if it is free; with a ticket, stands in line for it otherwise, or shows that it still does.
   *
   * KEYS: the fence, and all names of the lock. ARGV: the channel, the owner, its ttl in ms, the time in µs after which
   * this request is not valid any more, the ticket ('' to get one, `noTicket` not to stand in line), and how many tokens
   * are wished for. A request that arrives too late is refused, so a void mark need not live longer than the requests
   * that it is there for.
   *
   * Answers `granted <first token> <spare>`, `held`, `waiting <ticket> <remaining ms of the holder>` (-1: there is no
   * limit, or others are before us), `void`, or `stale <time of the server in µs>`. The owner that holds the lock follows
   * behind `held` and `waiting`.
   */
  readonly acquire: Script
  /** Prolongs grants. KEYS: the locks. ARGV: owner and ttl of each. Answers for each `ours` or `gone`. */
  readonly renew: Script
  /** Prolongs one grant, with new tokens. KEYS: the fence, the lock. ARGV: owner, ttl, tokens. Answers `granted ..` or `gone`. */
  readonly confirm: Script
  /**
   * Releases the key, straight to the next in line, and leaves the line. KEYS: all names. ARGV: the owner, and the time
   * in µs until which a request of it may still arrive and be valid, or 0. Answers `released` or `gone`.
   */
  readonly release: Script
  /**
   * Lets those that join the line tell the holder. KEYS: the lock, its line, its holder. ARGV: our channel, the owner, and
   * for how many ms. Answers `wanted` if there is a line, `alone`, or `gone`.
   */
  readonly watch: Script
  /** KEYS: lock, line, waiters. Answers `held` or `free`, the owner, its remaining ms, and the waiters' owners. */
  readonly inspect: Script
  /** Ends a hold. KEYS: all names. ARGV: the owner. Answers `revoked` or `gone`. */
  readonly revoke: Script
}

/** `countReceivers`: PUBLISH answers how many hear it. Not so in a cluster, where one node knows only its own. */
export const make = (countReceivers: boolean): Scripts => ({
  acquire: acquire(countReceivers),
  renew,
  confirm,
  release: release(countReceivers),
  watch,
  inspect,
  revoke: revoke(countReceivers)
})
