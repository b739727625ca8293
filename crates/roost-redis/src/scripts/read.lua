-- Hands commands to a session: those that are with it and unfinished, then queued ones.
-- KEYS s:<device>; ARGV base, not_after, device, session, after, window, undelivered-after ms,
-- retention ms, most commands, most bytes, history entries
-- Reply: STALE | FENCED | OK, more, {id, record, ...}, {ended id, record, waiting, ...}
if stale() then
  return { 'STALE' }
end
local device, mine, after = ARGV[3], ARGV[4], tonumber(ARGV[5])
local q = base .. 'q:' .. device
local session, _, _, d, b = session_of(device)
if session ~= mine then
  return { 'FENCED' }
end
-- After a session was claimed again the mark is gone, but what this session delivered it has.
if after > d then
  d = after
  redis.call('HSET', KEYS[1], 'd', int(d))
end
local window, undelivered, retention = window_of(b, ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local room, bytes = tonumber(ARGV[9]), tonumber(ARGV[10])
history = tonumber(ARGV[11])
local busy = with_session(device, d)
local found, ended, more = {}, {}, 0
local function finished(id, state, seq, by)
  local waiting = finish(device, id, state, retention, by)
  if seq <= d then
    busy = busy - 1
  end
  for _, v in ipairs({ id, redis.call('HGETALL', ckey(device, id)), waiting }) do
    ended[#ended + 1] = v
  end
end
-- Until when after its return a device may answer what has no attempt left.
local function answer_by(span)
  return tonumber(redis.call('HGET', KEYS[1], 'c') or '0') + span
end
-- One round looks at twice a batch: expired ones are struck off, so that the next round gets further.
local ids = redis.call('ZRANGEBYSCORE', q, '(' .. int(after), '+inf', 'WITHSCORES', 'LIMIT', 0, 2 * room)
for i = 1, #ids, 2 do
  local id, seq = ids[i], tonumber(ids[i + 1])
  local key = ckey(device, id)
  local r = redis.call('HMGET', key, 'x', 'z', 'a', 's', 'm')
  local expires, size = tonumber(r[1] or ''), tonumber(r[2] or '0')
  local attempt, state, most = tonumber(r[3] or '0'), tonumber(r[4] or '0'), tonumber(r[5] or '0')
  -- An attempt is charged where the device had it, or may have choked on it: what was behind the head
  -- may never have reached it.
  if attempt == 0 or state == RECEIVED or state == RUNNING or seq == b then
    attempt = attempt + 1
  end
  if not expires then
    strike(device, id, 0)
  elseif expires <= now then
    finished(id, EXPIRED, seq)
  elseif seq > d and busy >= window then
    return { 'OK', 0, found, ended }
  elseif seq > d and most > 0 and attempt > most and state >= SENT and now < answer_by(undelivered) then
    -- A device that was given it may come back with its answer in hand.
    look_at(device, id, math.min(answer_by(undelivered), expires))
    return { 'OK', 0, found, ended }
  elseif seq > d and most > 0 and attempt > most then
    finished(id, DEAD, seq, mine)
    bury(device, id, retention)
  elseif #found >= 2 * room or (bytes < size and #found > 0) then
    more = 1
    break
  else
    if seq > d then
      dispatch(device, id, seq, attempt, mine, undelivered, expires)
      d, busy = seq, busy + 1
    end
    bytes = bytes - size
    found[#found + 1] = id
    found[#found + 1] = redis.call('HGETALL', key)
  end
end
if #ids == 4 * room then
  more = 1
end
return { 'OK', more, found, ended }
