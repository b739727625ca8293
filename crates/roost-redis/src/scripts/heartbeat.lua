-- Starts or renews a node's lease, and tells the time.
-- KEYS {nodes}:; ARGV base, not_after, name, incarnation, lease ms, record ms, info fields ...
-- Reply: STALE, now | FENCED, now | OK, now
if stale() then
  return { 'STALE', now }
end
local owner, member = base .. 'o:' .. ARGV[3], ARGV[3] .. '#' .. ARGV[4]
local held = redis.call('GET', owner)
if held and held ~= ARGV[4] then
  return { 'FENCED', now }
end
redis.call('SET', owner, ARGV[4], 'PX', ARGV[5])
redis.call('ZADD', base .. 'z', int(now + tonumber(ARGV[5])), member)
local info = base .. 'i:' .. member
redis.call('HSET', info, 'hb', int(now), unpack(ARGV, 7))
redis.call('PEXPIRE', info, ARGV[6])
return { 'OK', now }
