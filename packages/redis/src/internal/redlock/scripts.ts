/**
 * The verbs on one of N servers as Lua scripts: no line, because a line on each of N servers is N lines. Each is atomic,
 * asks only the server's clock, and may be sent twice. Answers are texts.
 *
 * Tokens are decimal texts; those of one length compare like the numbers that they are. Each lock has a last token of its
 * own: with one for all, what several clients propose for several locks would never be the same on all servers.
 */
import { script } from "../scripts.ts"

/** For how long a fencing token outlives its grant, in milliseconds. */
export const fenceMillis = 3_600_000

const text = `
local function text(n) return string.format('%.0f', n) end
`

/**
 * Takes the key if it is free; prolongs it if it is ours.
 *
 * KEYS: lock, fence, void mark. ARGV: value, ttl in ms, life of the token in ms, the time in µs after which this request
 * is not valid any more, the least token.
 *
 * Answers `granted <token> <last token before it>`, `held <remaining ms> <holder>` (-1: no limit), `void`, or
 * `stale <time of the server in µs>`.
 */
export const take = script(`
local call = redis.call
local K, fence, void = unpack(KEYS)
local value, ttl, fencePx, till, least = unpack(ARGV)
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
${text}
if now > tonumber(till) then return 'stale ' .. text(now) end
if call('EXISTS', K, void) > 0 then
  local holder = call('GET', K)
  if holder and holder ~= value then return 'held ' .. text(call('PTTL', K)) .. ' ' .. holder end
  if call('EXISTS', void) == 1 then return 'void' end
  if call('PEXPIRE', fence, fencePx) == 1 then
    call('PEXPIRE', K, ttl)
    local token = call('GET', fence)
    -- What came before it is not known any more, but it was less.
    return 'granted ' .. token .. ' ' .. text(tonumber(token) - 1)
  end
end
local last = call('GET', fence)
local token = least
if last and not (#last == #least and last < least) then
  token = text(math.max((tonumber(last) or 0) + 1, tonumber(least)))
end
call('SET', fence, token, 'PX', fencePx)
call('SET', K, value, 'PX', ttl)
return 'granted ' .. token .. ' ' .. (last or '0')
`)

/**
 * Prolongs keys that are ours, and sees to it that their tokens are not less than ours. Never takes one.
 *
 * KEYS, for each: lock, fence. ARGV, for each: value, ttl in ms, life of the token in ms, token. Answers for each `ours`,
 * `absent` or `other`.
 */
export const hold = script(
  `
local function hold(K, fence, value, ttl, fencePx, token)
  local holder = redis.call('GET', K)
  if not holder then return 'absent' end
  if holder ~= value then return 'other' end
  redis.call('PEXPIRE', K, ttl)
  local last = redis.call('GET', fence)
  if last and (#last > #token or (#last == #token and last >= token)) then
    redis.call('PEXPIRE', fence, fencePx)
  else
    redis.call('SET', fence, token, 'PX', fencePx)
  end
  return 'ours'
end
local answers = {}
for i = 1, #KEYS / 2 do
  local k, a = 2 * i, 4 * i
  answers[i] = hold(KEYS[k - 1], KEYS[k], ARGV[a - 3], ARGV[a - 2], ARGV[a - 1], ARGV[a])
end
return answers
`,
  true
)

/**
 * Releases the key if it is ours, and tells the waiters. DEL comes first: a full server refuses the rest.
 *
 * KEYS: lock, void mark. ARGV: value, the time in µs until which a request may still arrive and be valid (0: there is
 * none), the channel. Answers `released` or `gone`.
 */
export const release = script(`
local K, void = unpack(KEYS)
local value, till, channel = unpack(ARGV)
local isOurs = redis.pcall('GET', K) == value
if isOurs then
  redis.call('DEL', K)
  redis.pcall('PUBLISH', channel, K)
end
if till ~= '0' then
  local time = redis.call('TIME')
  local left = tonumber(till) - (time[1] * 1000000 + time[2])
  if left > 0 then redis.call('SET', void, '1', 'PX', string.format('%.0f', left / 1000 + 1000)) end
end
return isOurs and 'released' or 'gone'
`)

/** KEYS: lock, fence. Answers `held` or `free`, the value, its remaining ms, and the last token. */
export const inspect = script(`
local holder = redis.call('GET', KEYS[1])
local millis = string.format('%.0f', redis.call('PTTL', KEYS[1]))
return {holder and 'held' or 'free', holder or '', millis, redis.call('GET', KEYS[2]) or '0'}
`)
