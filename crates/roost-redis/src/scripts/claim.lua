-- Makes a session the device's session, whoever had it before.
-- KEYS s:<device>; ARGV base, not_after, device, session, node, incarnation, protocol, address,
-- claimed_at, tenant, device id, history entries, takeovers that are a fight, within ms
-- Reply: STALE | OK, pending, contested[, old session, its node, its incarnation]
if stale() then
  return { 'STALE' }
end
local device, c = ARGV[3], claim_args()
local pending = redis.call('ZCARD', base .. 'q:' .. device)
-- A repeated claim, whose first answer was lost.
if redis.call('HGET', KEYS[1], 'i') == c.session then
  return { 'OK', pending, 0 }
end
local old, node, inc = take(device, c)
if not old then
  remember(device, 'C', c.session, c.node, c.inc, c.protocol, c.address)
  return { 'OK', pending, 0 }
end
remember(device, 'T', c.session, c.node, c.inc, c.protocol, c.address, old)
-- Takeovers are counted from the first of a row on.
local since, count = (redis.call('HGET', KEYS[1], 't') or ''):match('^(%d+)/(%d+)$')
since, count = tonumber(since or ''), tonumber(count or '0')
if not since or now - since > tonumber(ARGV[14]) then
  since, count = now, 0
end
count = count + 1
redis.call('HSET', KEYS[1], 't', int(since) .. '/' .. int(count))
local contested = count % tonumber(ARGV[13]) == 0
if contested then
  event('contested', device, c.session, c.node, int(now))
end
return { 'OK', pending, contested and 1 or 0, old, node, inc }
