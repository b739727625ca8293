-- Takes a device out of its tenant's list if nothing is known of it any more.
-- KEYS s:<device>; ARGV base, not_after, tenant, device id
-- Reply: OK
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('ZREM', base .. 'd:' .. ARGV[3], ARGV[4])
end
return { 'OK' }
