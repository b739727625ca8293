-- Ends a session.
-- KEYS s:<device>; ARGV base, not_after, device, session, close time, code, reason, initiator,
-- device retention ms, history entries
-- Reply: STALE | FENCED | OK
if stale() then
  return { 'STALE' }
end
local device = ARGV[3]
local session, node, inc, d = session_of(device)
if session ~= ARGV[4] then
  return { 'FENCED' }
end
local close = { time = ARGV[5], code = ARGV[6], reason = ARGV[7], who = ARGV[8] }
history = tonumber(ARGV[10])
put_end(device, session, node, inc, d, close, ARGV[9])
return { 'OK' }
