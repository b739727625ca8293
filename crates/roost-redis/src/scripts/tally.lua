-- Counts the unfinished commands of this partition and finds the oldest: the oldest of all as long as there
-- are few, else of those that are due first and last, some at random, and the oldest of last time. So
-- it costs the same however many there are, and comes to the oldest within a few turns.
-- KEYS due; ARGV base, not_after, how many are looked at
-- Reply: STALE | OK, commands, when the oldest was created in ms or 0
if stale() then
  return { 'STALE' }
end
local limit, oldest_key = tonumber(ARGV[3]), base .. 'oldest'
local count = redis.call('ZCARD', KEYS[1])
local members
if count <= limit then
  members = redis.call('ZRANGE', KEYS[1], 0, -1)
else
  local some = math.floor(limit / 4)
  members = redis.call('ZRANGE', KEYS[1], 0, 2 * some - 1)
  for _, more in ipairs({
    redis.call('ZRANGE', KEYS[1], -some, -1),
    redis.call('ZRANDMEMBER', KEYS[1], some),
    { redis.call('GET', oldest_key) or nil },
  }) do
    for _, member in ipairs(more) do
      members[#members + 1] = member
    end
  end
end
local oldest, created = false, 0
for _, member in ipairs(members) do
  local device, id = cut(member)
  if device and redis.call('ZSCORE', KEYS[1], member) then
    local at = tonumber(redis.call('HGET', ckey(device, id), 'c') or '')
    if at and (not oldest or at < created) then
      oldest, created = member, at
    end
  end
end
-- Remembered only where not all were seen; nothing is written for a hub that is at rest.
if oldest and count > limit then
  redis.call('SET', oldest_key, oldest, 'PX', 600000)
end
return { 'OK', count, int(created) }
