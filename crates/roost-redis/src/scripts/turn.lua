-- Takes a turn at a hub-wide job, if it is free.
-- KEYS {nodes}:; ARGV base, not_after, job, ttl ms
-- Reply: STALE | OK, taken
if stale() then
  return { 'STALE' }
end
local set = redis.call('SET', base .. 'turn:' .. ARGV[3], '1', 'NX', 'PX', ARGV[4])
return { 'OK', set and 1 or 0 }
