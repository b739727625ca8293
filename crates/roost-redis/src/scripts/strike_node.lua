-- Takes a node off the list: it left, or its sessions are ended.
-- KEYS {nodes}:; ARGV base, not_after, name, incarnation
-- Reply: STALE | OK
if stale() then
  return { 'STALE' }
end
local owner, member = base .. 'o:' .. ARGV[3], ARGV[3] .. '#' .. ARGV[4]
if redis.call('GET', owner) == ARGV[4] then
  redis.call('DEL', owner)
end
redis.call('ZREM', base .. 'z', member)
redis.call('DEL', base .. 'i:' .. member)
return { 'OK' }
