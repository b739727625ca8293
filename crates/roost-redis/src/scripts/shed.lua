-- Grants leave to send devices away: all nodes together get so many a second, and a little at once. The
-- key holds when the next one may go at that pace, in µs; what is ahead of it is granted to a bound.
-- KEYS {nodes}:; ARGV base, not_after, wanted, per second
-- Reply: STALE | OK, granted
if stale() then
  return { 'STALE' }
end
local interval = math.floor(1000000 / math.max(1, tonumber(ARGV[4])))
local burst = math.max(interval, 250000)
local key = base .. 'shed'
local next_us = math.max(tonumber(redis.call('GET', key) or '0'), now_us)
local free = math.max(0, math.floor((now_us + burst - next_us) / interval))
local granted = math.min(tonumber(ARGV[3]), free)
if granted > 0 then
  redis.call('SET', key, int(next_us + granted * interval), 'PX', '60000')
end
return { 'OK', granted }
