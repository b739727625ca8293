-- Notes what an edge learned about a command.
-- KEYS s:<device>; ARGV base, not_after, device, session, id, state, progress or '', result or '', the
-- result without what may be large, which of the two is kept: full or small, whether something of it
-- is missing: 1 or 0, window, retention ms, undelivered-after ms, history entries
-- Reply: STALE | FENCED | UNKNOWN | LATE, state | APPLIED, now, more, record, waiting
if stale() then
  return { 'STALE' }
end
local device, mine, id, next_state = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local progress, full, small = ARGV[7], ARGV[8], ARGV[9]
local session, _, _, d, b = session_of(device)
if session ~= mine then
  return { 'FENCED' }
end
local key = ckey(device, id)
local r = redis.call('HMGET', key, 's', 'x', 'o', 'w', 'r', 'l', 'k')
if not r[1] then
  return { 'UNKNOWN' }
end
history = tonumber(ARGV[15])
local state, expires = tonumber(r[1]), tonumber(r[2])
-- Its time is over but nobody ended it yet: the sweep will, and tell those who wait.
if state < FIRST_TERMINAL and expires <= now then
  state = EXPIRED
end
-- In a result's protobuf `payload_dropped` comes last: field 4, true.
local DROPPED = '\32\1'
local result = (ARGV[10] == 'full' and full or small) .. (ARGV[11] == '1' and DROPPED or '')
local function repeats(known)
  return known and (known == full or known == full .. DROPPED or known == small .. DROPPED)
end
local again = progress ~= '' and state == RUNNING
-- Only the session that it was handed to can have sent it.
local foreign = next_state == 2 and r[3] ~= mine
if foreign or state >= FIRST_TERMINAL or not (again or next_state > state) then
  if full ~= '' and state >= FIRST_TERMINAL and not repeats(r[5]) and not repeats(r[6]) then
    local count = tonumber((r[7] or '0@'):match('^%d+')) + 1
    redis.call('HSET', key, 'l', result, 'k', count .. '@' .. int(now))
    redis.call('HINCRBY', key, 'v', 1)
  end
  touch(key)
  return { 'LATE', state }
end
local waiting = r[4] or ''
if progress ~= '' then
  redis.call('HSET', key, 'p', progress)
end
if full ~= '' then
  redis.call('HSET', key, 'r', result)
end
-- A sign of the device: what comes behind the head may follow it again.
if b and next_state >= RECEIVED then
  redis.call('HDEL', KEYS[1], 'b')
  b = nil
end
if next_state >= FIRST_TERMINAL then
  finish(device, id, next_state, tonumber(ARGV[13]), mine)
else
  if again then
    redis.call('HINCRBY', key, 'v', 1)
  else
    step(device, id, next_state, mine)
  end
  look_at(device, id, expires)
end
local more = has_next(device, d, window_of(b, ARGV[12]), tonumber(ARGV[14]))
return { 'APPLIED', now, more and 1 or 0, redis.call('HGETALL', key), waiting }
