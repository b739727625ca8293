-- Every node with its lease's end and what it said of itself.
-- KEYS {nodes}:; ARGV base, not_after
-- Reply: OK, now, {member, lease end, info} ...
local out = { 'OK', now }
local all = redis.call('ZRANGE', base .. 'z', 0, -1, 'WITHSCORES')
for i = 1, #all, 2 do
  out[#out + 1] = { all[i], tonumber(all[i + 1]), redis.call('HGETALL', base .. 'i:' .. all[i]) }
end
return out
