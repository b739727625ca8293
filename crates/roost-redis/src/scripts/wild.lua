-- Changes the table of wildcard filters.
-- KEYS {wild}:; ARGV base, not_after, op (add, del, set, drop), owner, member ...
-- Reply: STALE | OK, version before, version after (the same where nothing changed)
if stale() then
  return { 'STALE' }
end
local key, op, changed = base .. 'f:' .. ARGV[4], ARGV[3], 0
if op == 'set' or op == 'drop' then
  changed = redis.call('DEL', key)
end
for i = 5, #ARGV do
  changed = changed + redis.call(op == 'del' and 'SREM' or 'SADD', key, ARGV[i])
end
if redis.call('EXISTS', key) == 1 then
  redis.call('SADD', base .. 'owners', ARGV[4])
else
  redis.call('SREM', base .. 'owners', ARGV[4])
end
local before = tonumber(redis.call('GET', base .. 'v') or '0')
if changed == 0 then
  return { 'OK', before, before }
end
-- By time, so that a table that was lost does not count through the same versions again.
local after = math.max(before + 1, now_us)
redis.call('SET', base .. 'v', int(after))
return { 'OK', before, after }
