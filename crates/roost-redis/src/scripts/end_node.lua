-- Ends sessions that a dead node left in this partition, a batch of them.
-- KEYS n:<node>:<incarnation>; ARGV base, not_after, node, incarnation, reason, device retention ms,
-- how many, history entries
-- Reply: STALE | OK, ended, whether there are more
if stale() then
  return { 'STALE' }
end
local node, inc = ARGV[3], ARGV[4]
local close = { time = int(now), code = 1006, reason = ARGV[5], who = 'hub' }
history = tonumber(ARGV[8])
local ended = 0
for _, device in ipairs(redis.call('SRANDMEMBER', KEYS[1], ARGV[7])) do
  local session, at, life, d = session_of(device)
  if session and at == node and life == inc then
    put_end(device, session, node, inc, d, close, ARGV[6])
    ended = ended + 1
  else
    redis.call('SREM', KEYS[1], device)
  end
end
return { 'OK', ended, redis.call('EXISTS', KEYS[1]) }
