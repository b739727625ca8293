-- Writes something that changes nothing, for what was read just now to be as durable as it.
-- KEYS h:<device>; ARGV base, not_after
-- Reply: OK
touch(KEYS[1])
return { 'OK' }
