-- Notes on a dead command which one took its place.
-- KEYS s:<device>; ARGV base, not_after, device, id, the successor's id
-- Reply: STALE | NONE | OK
if stale() then
  return { 'STALE' }
end
local device, id = ARGV[3], ARGV[4]
local key = ckey(device, id)
local r = redis.call('HMGET', key, 's', 'n')
if tonumber(r[1] or '') ~= DEAD then
  return { 'NONE' }
end
if r[2] ~= ARGV[5] then
  redis.call('HSET', key, 'n', ARGV[5])
  redis.call('HINCRBY', key, 'v', 1)
end
redis.call('ZREM', dead_key(device), device .. ':' .. id)
touch(key)
return { 'OK' }
