-- Looks at the commands of this partition that are due, a batch of them.
-- KEYS due; ARGV base, not_after, how many, undelivered-after ms, retention ms, window,
-- history entries
-- Reply: STALE | OK, whether there are more, {'E', device, id, record, waiting}
-- or {'U', device, session, node, incarnation} ...
if stale() then
  return { 'STALE' }
end
local limit, undelivered, retention = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local window = ARGV[6]
history = tonumber(ARGV[7])
local found = {}
local members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now), 'LIMIT', 0, limit)
for _, member in ipairs(members) do
  local device, id = cut(member)
  local r = device and redis.call('HMGET', ckey(device, id), 's', 'x', 'o', 'q')
  local state = r and tonumber(r[1] or '')
  if not device then
    redis.call('ZREM', KEYS[1], member)
  elseif not state or state >= FIRST_TERMINAL or not tonumber(r[2] or '') then
    strike(device, id, 0)
  elseif tonumber(r[2]) <= now then
    local waiting = finish(device, id, EXPIRED, retention)
    found[#found + 1] = { 'E', device, id, redis.call('HGETALL', ckey(device, id)), waiting }
    local session, node, inc, d, b = session_of(device)
    if session and tonumber(r[4]) <= d and has_next(device, d, window_of(b, window), undelivered) then
      found[#found + 1] = { 'U', device, session, node, inc }
    end
  else
    local session, node, inc, d, b = session_of(device)
    local expires = tonumber(r[2])
    local lost = state == 1 and session == r[3]
    local left = tonumber(r[4]) > d and with_session(device, d) < window_of(b, window)
    if session and (lost or left) then
      found[#found + 1] = { 'U', device, session, node, inc }
      look_at(device, id, math.min(now + undelivered, expires))
    else
      look_at(device, id, expires)
    end
  end
end
return { 'OK', #members == limit and 1 or 0, found }
