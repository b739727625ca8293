-- Ends a command that is still queued.
-- KEYS s:<device>; ARGV base, not_after, device, id, retention ms, history entries
-- Reply: STALE | UNKNOWN | ENDED, now, d, record | CANCELLED, now, record, waiting
-- | LATE, now, d, record[, session, node, incarnation]
if stale() then
  return { 'STALE' }
end
local device, id = ARGV[3], ARGV[4]
local key = ckey(device, id)
local r = redis.call('HMGET', key, 's', 'x', 'q', 'o')
if not r[1] then
  return { 'UNKNOWN' }
end
local session, node, inc, d = session_of(device)
local state, expires, seq = tonumber(r[1]), tonumber(r[2]), tonumber(r[3])
if state >= FIRST_TERMINAL or expires <= now then
  touch(key)
  return { 'ENDED', now, d, redis.call('HGETALL', key) }
end
-- What is above the mark of the session is with nobody.
if state == 0 or seq > d then
  history = tonumber(ARGV[6])
  local waiting = finish(device, id, CANCELLED, tonumber(ARGV[5]))
  return { 'CANCELLED', now, redis.call('HGETALL', key), waiting }
end
touch(key)
if session == r[4] then
  return { 'LATE', now, d, redis.call('HGETALL', key), session, node, inc }
end
return { 'LATE', now, d, redis.call('HGETALL', key) }
