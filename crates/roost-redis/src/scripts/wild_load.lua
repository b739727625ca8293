-- The whole table of wildcard filters.
-- KEYS {wild}:; ARGV base, not_after
-- Reply: OK, version, {owner, {member ...}} ...
local out = { 'OK', tonumber(redis.call('GET', base .. 'v') or '0') }
for _, owner in ipairs(redis.call('SMEMBERS', base .. 'owners')) do
  out[#out + 1] = { owner, redis.call('SMEMBERS', base .. 'f:' .. owner) }
end
return out
