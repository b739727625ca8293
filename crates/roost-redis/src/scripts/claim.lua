-- Makes a session the device's session, whoever had it before.
-- KEYS s:<device>; ARGV base, not_after, device, session, node, incarnation, protocol, address,
-- claimed_at, tenant, device id
-- Reply: STALE | OK, pending[, old session, its node, its incarnation]
if stale() then
  return { 'STALE' }
end
local device, c = ARGV[3], claim_args()
local pending = redis.call('ZCARD', base .. 'q:' .. device)
-- A repeated claim, whose first answer was lost.
if redis.call('HGET', KEYS[1], 'i') == c.session then
  return { 'OK', pending }
end
local old, node, inc = take(device, c)
return { 'OK', pending, old, node, inc }
