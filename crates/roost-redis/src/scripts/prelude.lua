-- Shared by every script that works on a partition. ARGV[1] is the partition's key prefix
-- (`roost:1:{p17}:`), ARGV[2] the hub time in ms after which a write is refused, 0 for never.
-- Keys are derived from the prefix, so all have its hash tag; KEYS[1] names one of them, which is
-- what a cluster routes by. A device is written `<len>:<tenant>:<len>:<device>` (see keys.rs).
local base = ARGV[1]
local t = redis.call('TIME')
local now_us = t[1] * 1000000 + t[2]
local now = math.floor(now_us / 1000)
local function stale()
  local limit = tonumber(ARGV[2])
  return limit > 0 and now > limit
end
-- Numbers as Redis wants them; Lua's own tostring rounds to 14 digits.
local function int(n)
  return string.format('%.0f', n)
end
-- A key lives at least until `at`; one without a TTL gets it.
local function keep_until(key, at)
  if redis.call('PEXPIRETIME', key) < at then
    redis.call('PEXPIREAT', key, int(at))
  end
end
-- States are numbered as in CommandState: 0 queued, 1 dispatched, 2 sent, 3 received, 4 running,
-- 5 succeeded, 6 failed, 7 rejected, 8 expired, 9 cancelled, 10 dead.
local FIRST_TERMINAL, EXPIRED, CANCELLED = 5, 8, 9
-- How many steps of a command are kept, the first always among them.
local KEPT_STEPS = 32
local function with_step(steps, state)
  steps = steps .. ',' .. state .. '@' .. int(now)
  local _, commas = steps:gsub(',', '')
  if commas >= KEPT_STEPS then
    steps = steps:gsub('^([^,]*),[^,]*', '%1', 1)
  end
  return steps
end
local function ckey(device, id)
  return base .. 'c:' .. device .. ':' .. id
end
local function session_of(device)
  local s = redis.call('HMGET', base .. 's:' .. device, 'i', 'n', 'g', 'd')
  return s[1], s[2], s[3], tonumber(s[4] or '0')
end
local function step(key, state)
  local steps = redis.call('HGET', key, 't') or ''
  redis.call('HSET', key, 's', state, 't', with_step(steps, state))
end
-- An unfinished command's next moment to be looked at.
local function look_at(device, id, at)
  redis.call('ZADD', base .. 'due', int(at), device .. ':' .. id)
end
-- Out of the order: it is finished, or its record is gone and its size unknown.
local function strike(device, id, size)
  local q, m = base .. 'q:' .. device, base .. 'm:' .. device
  redis.call('ZREM', base .. 'due', device .. ':' .. id)
  if redis.call('ZREM', q, id) == 1 then
    if redis.call('EXISTS', q) == 0 then
      redis.call('DEL', m)
    else
      redis.call('DECRBY', m, size)
    end
  end
end
-- Ends a command; its record stays for the retention, and nobody waits for it any more. Gives who did.
local function finish(device, id, state, retention)
  local key = ckey(device, id)
  local waiting = redis.call('HGET', key, 'w') or ''
  step(key, state)
  redis.call('HDEL', key, 'w')
  redis.call('PEXPIREAT', key, int(now + retention))
  strike(device, id, redis.call('HGET', key, 'z') or 0)
  return waiting
end
-- Hands a command to a session; what is at or below `d` of the session record is with the session.
local function dispatch(device, id, seq, session, undelivered, expires)
  local key = ckey(device, id)
  redis.call('HINCRBY', key, 'a', 1)
  redis.call('HSET', key, 'o', session)
  step(key, 1)
  redis.call('HSET', base .. 's:' .. device, 'd', int(seq))
  look_at(device, id, math.min(now + undelivered, expires))
end
local function with_session(device, d)
  return redis.call('ZCOUNT', base .. 'q:' .. device, '-inf', int(d))
end
local function waits(device, d)
  return redis.call('ZCOUNT', base .. 'q:' .. device, '(' .. int(d), '+inf') > 0
end
-- Whether commands wait that may be handed out now. Should nobody hear of it, the sweep finds the first.
local function has_next(device, d, window, undelivered)
  if with_session(device, d) >= window then
    return false
  end
  local id = redis.call('ZRANGEBYSCORE', base .. 'q:' .. device, '(' .. int(d), '+inf', 'LIMIT', 0, 1)[1]
  local expires = id and tonumber(redis.call('HGET', ckey(device, id), 'x') or '')
  if expires then
    look_at(device, id, math.min(now + undelivered, expires))
  end
  return id ~= nil
end
-- Adds a node to those that wait for a command: at most 8, and none for one that ended.
local function add_waiting(key, node)
  if node == '' then
    return
  end
  local r = redis.call('HMGET', key, 's', 'w')
  local list = r[2] or ''
  if not r[1] or tonumber(r[1]) >= FIRST_TERMINAL then
    return
  end
  local count = 0
  for name in list:gmatch('%S+') do
    if name == node then
      return
    end
    count = count + 1
  end
  if count < 8 then
    redis.call('HSET', key, 'w', list == '' and node or list .. ' ' .. node)
  end
end
-- A presence event, in the same script as the change that it tells.
local EVENTS = 1000
local function event(kind, device, session, node, time, close)
  local fields = { 'e', kind, 'd', device, 'i', session, 'n', node, 't', time }
  for _, f in ipairs(close or {}) do
    fields[#fields + 1] = f
  end
  redis.call('XADD', base .. 'ev', 'MAXLEN', '~', EVENTS, '*', unpack(fields))
end
-- Makes a session the device's, whoever had it before.
local function take(device, c)
  local key = base .. 's:' .. device
  local old, node, inc = session_of(device)
  if old then
    redis.call('SREM', base .. 'n:' .. node .. ':' .. inc, device)
  end
  redis.call('SADD', base .. 'n:' .. c.node .. ':' .. c.inc, device)
  redis.call('HSET', key, 'i', c.session, 'n', c.node, 'g', c.inc, 'p', c.protocol, 'a', c.address, 'c', c.claimed)
  redis.call('HDEL', key, 'd')
  redis.call('PERSIST', key)
  redis.call('ZADD', base .. 'd:' .. c.tenant, 0, c.device)
  event(old and 'taken_over' or 'connected', device, c.session, c.node, int(now))
  return old, node, inc
end
local function claim_args()
  return {
    session = ARGV[4], node = ARGV[5], inc = ARGV[6], protocol = ARGV[7], address = ARGV[8],
    claimed = ARGV[9], tenant = ARGV[10], device = ARGV[11],
  }
end
-- Ends a session: the record keeps how, until the device's retention is over.
local function put_end(device, session, node, inc, close, retention)
  local key = base .. 's:' .. device
  redis.call('SREM', base .. 'n:' .. node .. ':' .. inc, device)
  redis.call('HDEL', key, 'i', 'n', 'g', 'p', 'a', 'd')
  redis.call('HSET', key, 'l', close.time, 'k', close.code, 'r', close.reason, 'w', close.who)
  redis.call('PEXPIRE', key, retention)
  event('disconnected', device, session, node, close.time, { 'k', close.code, 'r', close.reason, 'w', close.who })
end
