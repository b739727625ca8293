-- Confirms a session after an interruption, or claims it again: the newest claim wins.
-- KEYS s:<device>; ARGV as in claim, up to history entries
-- Reply: STALE | KEPT | RECLAIMED | LOST
if stale() then
  return { 'STALE' }
end
local device, c = ARGV[3], claim_args()
local r = redis.call('HMGET', KEYS[1], 'i', 'c')
local current, claimed, mine = r[1], tonumber(r[2] or '-1'), tonumber(c.claimed)
if current == c.session then
  redis.call('SADD', base .. 'n:' .. c.node .. ':' .. c.inc, device)
  return { 'KEPT' }
end
-- The time of the last claim outlives its session: one that came later and is over already won too.
if claimed > mine or (current and claimed == mine) then
  return { 'LOST' }
end
local old = take(device, c)
-- Its connection stands: what was lost was only the knowledge of it.
if not old then
  redis.call('HDEL', KEYS[1], 'b')
end
remember(device, 'R', c.session, c.node, c.inc, old or '')
return { 'RECLAIMED' }
