-- Accepts a command once, and decides whether it goes to the device now.
-- KEYS s:<device>; ARGV base, not_after, device, id, digest, body, payload bytes, expires, waiting node
-- or '', window, most commands, most bytes, retention ms, undelivered-after ms, most attempts or 0,
-- history entries
-- Reply: STALE | CONFLICT | FULL, commands, bytes | EXISTING, now, d, record
-- | ACCEPTED, now, d, record[, session, node, incarnation, prev]
if stale() then
  return { 'STALE' }
end
local device, id = ARGV[3], ARGV[4]
local key, q, m, h = ckey(device, id), base .. 'q:' .. device, base .. 'm:' .. device, base .. 'h:' .. device
local session, node, inc, d, b = session_of(device)
local digest = redis.call('HGET', key, 'g')
if digest then
  if digest ~= ARGV[5] then
    return { 'CONFLICT' }
  end
  add_waiting(key, ARGV[9])
  touch(key)
  return { 'EXISTING', now, d, redis.call('HGETALL', key) }
end
local size, expires, window = tonumber(ARGV[7]), tonumber(ARGV[8]), window_of(b, ARGV[10])
history = tonumber(ARGV[16])
local count, bytes = redis.call('ZCARD', q), tonumber(redis.call('GET', m) or '0')
if count >= tonumber(ARGV[11]) or bytes + size > tonumber(ARGV[12]) then
  return { 'FULL', count, bytes }
end
-- Greater than any place handed out before, though nothing is kept for a device without commands.
local last = tonumber(redis.call('ZREVRANGE', h, 0, 0, 'WITHSCORES')[2] or '0')
local seq = math.max(now_us, last + 1, d + 1)
local goes = session and expires > now and not waits(device, d) and with_session(device, d) < window
redis.call('HSET', key, 'b', ARGV[6], 'g', ARGV[5], 'z', ARGV[7], 'x', ARGV[8], 'c', int(now),
  'q', int(seq), 's', 0, 'a', 0, 'v', 1, 't', '0@' .. int(now))
if ARGV[15] ~= '0' then
  redis.call('HSET', key, 'm', ARGV[15])
end
add_waiting(key, ARGV[9])
local keep = math.max(expires, now) + tonumber(ARGV[13])
redis.call('PEXPIREAT', key, int(keep))
redis.call('ZADD', q, int(seq), id)
redis.call('INCRBY', m, size)
redis.call('ZADD', h, int(seq), id)
for _, k in ipairs({ q, m, h }) do
  keep_until(k, keep)
end
remember(device, 'X', id, 0, '')
if not session then
  keep_until(base .. 'y:' .. device, keep)
end
-- Each new id makes room for two that are forgotten.
for _, old in ipairs(redis.call('ZRANGE', h, 0, 1)) do
  if redis.call('EXISTS', ckey(device, old)) == 0 then
    redis.call('ZREM', h, old)
  end
end
if not goes then
  look_at(device, id, expires)
  return { 'ACCEPTED', now, d, redis.call('HGETALL', key) }
end
dispatch(device, id, seq, 1, session, tonumber(ARGV[14]), expires)
return { 'ACCEPTED', now, seq, redis.call('HGETALL', key), session, node, inc, d }
