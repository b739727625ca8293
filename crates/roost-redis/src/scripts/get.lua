-- A command as it stands; a node may ask to be told of its progress.
-- KEYS s:<device>; ARGV base, not_after, device, id, waiting node or '', whether the answer is to be durable
-- Reply: STALE | NONE | OK, now, d, record
if ARGV[5] ~= '' and stale() then
  return { 'STALE' }
end
local device, key = ARGV[3], ckey(ARGV[3], ARGV[4])
if redis.call('EXISTS', key) == 0 then
  return { 'NONE' }
end
add_waiting(key, ARGV[5])
if ARGV[6] == '1' then
  touch(key)
end
local _, _, _, d = session_of(device)
return { 'OK', now, d, redis.call('HGETALL', key) }
