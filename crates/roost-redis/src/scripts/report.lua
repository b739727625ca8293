-- Notes what an edge learned about a command.
-- KEYS s:<device>; ARGV base, not_after, device, session, id, state, progress or '', result or '',
-- window, retention ms, undelivered-after ms
-- Reply: STALE | FENCED | UNKNOWN | LATE, state | APPLIED, now, more, record, waiting
if stale() then
  return { 'STALE' }
end
local device, mine, id, next_state = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local session, _, _, d = session_of(device)
if session ~= mine then
  return { 'FENCED' }
end
local key = ckey(device, id)
local r = redis.call('HMGET', key, 's', 'x', 'o', 'w')
if not r[1] then
  return { 'UNKNOWN' }
end
local state, expires = tonumber(r[1]), tonumber(r[2])
-- Its time is over but nobody ended it yet: the sweep will, and tell those who wait.
if state < FIRST_TERMINAL and expires <= now then
  return { 'LATE', EXPIRED }
end
local again = ARGV[7] ~= '' and state == 4
-- Only the session that it was handed to can have sent it.
local foreign = next_state == 2 and r[3] ~= mine
if foreign or state >= FIRST_TERMINAL or not (again or next_state > state) then
  return { 'LATE', state }
end
local waiting = r[4] or ''
if ARGV[7] ~= '' then
  redis.call('HSET', key, 'p', ARGV[7])
end
if ARGV[8] ~= '' then
  redis.call('HSET', key, 'r', ARGV[8])
end
if next_state >= FIRST_TERMINAL then
  finish(device, id, next_state, tonumber(ARGV[10]))
else
  if not again then
    step(key, next_state)
  end
  look_at(device, id, expires)
end
local more = has_next(device, d, tonumber(ARGV[9]), tonumber(ARGV[11]))
return { 'APPLIED', now, more and 1 or 0, redis.call('HGETALL', key), waiting }
