-- Adds to a device's history what its edge refused.
-- KEYS s:<device>; ARGV base, not_after, device, session, history entries, what, code, about
-- Reply: STALE | FENCED | OK
if stale() then
  return { 'STALE' }
end
local device = ARGV[3]
if session_of(device) ~= ARGV[4] then
  return { 'FENCED' }
end
history = tonumber(ARGV[5])
remember(device, 'N', ARGV[4], ARGV[6], ARGV[7], ARGV[8])
return { 'OK' }
