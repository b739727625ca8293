-- Dead commands of a tenant in this partition, by the time of their end; forgets those that are no more.
-- KEYS z:<tenant>; ARGV base, not_after, score and member of the last one seen (-inf and '' for none),
-- how many
-- Reply: STALE | OK, whether there are more, {device, id, score, record} ...
if stale() then
  return { 'STALE' }
end
local key, score, after, limit = KEYS[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
-- The one that the last page ended with may have been taken off since.
local start = after ~= '' and redis.call('ZRANK', key, after)
start = start and start + 1 or redis.call('ZCOUNT', key, '-inf', '(' .. score)
local found, gone = {}, {}
local members = redis.call('ZRANGE', key, start, start + limit - 1, 'WITHSCORES')
for i = 1, #members, 2 do
  local device, id = cut(members[i])
  local r = device and redis.call('HMGET', ckey(device, id), 's', 'n')
  if r and tonumber(r[1] or '') == DEAD and not r[2] then
    found[#found + 1] = { device, id, members[i + 1], redis.call('HGETALL', ckey(device, id)) }
  else
    gone[#gone + 1] = members[i]
  end
end
if #gone > 0 then
  redis.call('ZREM', key, unpack(gone))
end
return { 'OK', #members == 2 * limit and 1 or 0, found }
