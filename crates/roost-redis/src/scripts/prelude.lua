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
-- What stands for as long as before, written once more: an answer that repeats another one is as durable
-- as the last write of its own.
local function touch(key)
  local at = redis.call('PEXPIRETIME', key)
  if at > 0 then
    redis.call('PEXPIREAT', key, int(at))
  end
end
-- How many entries of its history a device keeps; a script that adds to it sets this.
local history = 0
-- Adds to a device's history: fields with their lengths before them, the time first. Gives how many
-- entries there are. The list lives as long as the session record; where there is none, see `step`.
local function remember(device, ...)
  if history < 1 then
    return 0
  end
  local at = int(now)
  local entry = #at .. ':' .. at
  for _, field in ipairs({ ... }) do
    entry = entry .. #tostring(field) .. ':' .. field
  end
  local key = base .. 'y:' .. device
  local count = redis.call('RPUSH', key, entry)
  if count > history then
    redis.call('LTRIM', key, -history, -1)
  end
  return count
end
-- States are numbered as in CommandState: 0 queued, 1 dispatched, 2 sent, 3 received, 4 running,
-- 5 succeeded, 6 failed, 7 rejected, 8 expired, 9 cancelled, 10 dead.
local SENT, RECEIVED, RUNNING, FIRST_TERMINAL, EXPIRED, CANCELLED, DEAD = 2, 3, 4, 5, 8, 9, 10
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
-- Session, node, incarnation, mark, and the head of the order when a session was lost, if the device has
-- acknowledged nothing since.
local function session_of(device)
  local s = redis.call('HMGET', base .. 's:' .. device, 'i', 'n', 'g', 'd', 'b')
  return s[1], s[2], s[3], tonumber(s[4] or '0'), tonumber(s[5] or '')
end
-- How many commands may be with a device; `b` as session_of gives it.
local function window_of(b, window)
  return b and 1 or tonumber(window)
end
-- A step of a command, in its record and in the device's history; `session` had a part in it, or nil.
local function step(device, id, state, session)
  local key = ckey(device, id)
  local steps = redis.call('HGET', key, 't') or ''
  redis.call('HSET', key, 's', state, 't', with_step(steps, state))
  redis.call('HINCRBY', key, 'v', 1)
  if remember(device, 'X', id, state, session or '') == 1 and not session then
    redis.call('PEXPIREAT', base .. 'y:' .. device, redis.call('PEXPIRETIME', key))
  end
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
local function finish(device, id, state, retention, session)
  local key = ckey(device, id)
  local waiting = redis.call('HGET', key, 'w') or ''
  step(device, id, state, session)
  redis.call('HDEL', key, 'w')
  redis.call('PEXPIREAT', key, int(now + retention))
  strike(device, id, redis.call('HGET', key, 'z') or 0)
  return waiting
end
-- Where a tenant's dead commands of this partition are listed.
local function dead_key(device)
  local len, at = device:match('^(%d+):()')
  return base .. 'z:' .. device:sub(at, at + len - 1)
end
-- Lists a dead command for as long as its record is kept, and forgets those whose record is gone.
local function bury(device, id, retention)
  local key = dead_key(device)
  redis.call('ZADD', key, int(now), device .. ':' .. id)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now - retention))
  keep_until(key, now + retention)
end
-- `<len>:<tenant>:<len>:<device>:<id>`, cut before the last colon part.
local function cut(member)
  local a, at = member:match('^(%d+):()')
  if not a then
    return nil
  end
  local second = at + tonumber(a) + 1
  local b, start = member:match('^(%d+):()', second)
  if not b then
    return nil
  end
  local stop = start + tonumber(b)
  return member:sub(1, stop - 1), member:sub(stop + 1)
end
-- Hands a command to a session; what is at or below `d` of the session record is with the session.
local function dispatch(device, id, seq, attempt, session, undelivered, expires)
  local key = ckey(device, id)
  redis.call('HSET', key, 'a', attempt, 'o', session)
  step(device, id, 1, session)
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
-- What was with a session is queued again by there being no mark; from now on the device gets one
-- command at a time, until it acknowledges one.
local function lose_session(device, d)
  local key = base .. 's:' .. device
  if d > 0 then
    local q = base .. 'q:' .. device
    local head = redis.call('ZRANGEBYSCORE', q, '-inf', int(d), 'WITHSCORES', 'LIMIT', 0, 1)[2]
    if head then
      redis.call('HSET', key, 'b', int(tonumber(head)))
    end
  end
  redis.call('HDEL', key, 'd')
end
-- Makes a session the device's, whoever had it before.
local function take(device, c)
  local key = base .. 's:' .. device
  local old, node, inc, d = session_of(device)
  if old then
    redis.call('SREM', base .. 'n:' .. node .. ':' .. inc, device)
  end
  lose_session(device, d)
  redis.call('SADD', base .. 'n:' .. c.node .. ':' .. c.inc, device)
  redis.call('HSET', key, 'i', c.session, 'n', c.node, 'g', c.inc, 'p', c.protocol, 'a', c.address, 'c', c.claimed)
  redis.call('PERSIST', key)
  redis.call('PERSIST', base .. 'y:' .. device)
  redis.call('ZADD', base .. 'd:' .. c.tenant, 0, c.device)
  event(old and 'taken_over' or 'connected', device, c.session, c.node, int(now))
  return old, node, inc
end
local function claim_args()
  history = tonumber(ARGV[12])
  return {
    session = ARGV[4], node = ARGV[5], inc = ARGV[6], protocol = ARGV[7], address = ARGV[8],
    claimed = ARGV[9], tenant = ARGV[10], device = ARGV[11],
  }
end
-- Ends a session: the record keeps how, until the device's retention is over.
local function put_end(device, session, node, inc, d, close, retention)
  local key = base .. 's:' .. device
  redis.call('SREM', base .. 'n:' .. node .. ':' .. inc, device)
  lose_session(device, d)
  redis.call('HDEL', key, 'i', 'n', 'g', 'p', 'a')
  redis.call('HSET', key, 'l', close.time, 'k', close.code, 'r', close.reason, 'w', close.who)
  redis.call('PEXPIRE', key, retention)
  remember(device, 'D', session, close.time, close.code, close.who, close.reason)
  redis.call('PEXPIRE', base .. 'y:' .. device, retention)
  event('disconnected', device, session, node, close.time, { 'k', close.code, 'r', close.reason, 'w', close.who })
end
