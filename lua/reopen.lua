#!lua flags=allow-oom
-- Purpose: opens a claimed partition in its next epoch, rebuilt or as it was.
-- KEYS: meta, journal
-- ARGV: token, epoch (the new one), previous_id (the last entry that is in Postgres), time (milliseconds: never earlier than this)
-- Returns: {'opened', head} or {'not_mine'} where the partition is open or another rebuild has claimed it
-- Invariant: the journal's next entry continues what Postgres has; what could not be drained is gone.
local meta_key, journal_key, token, epoch, previous_id, floor = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local meta = redis.call('HMGET', meta_key, 'state', 'token', 'time')
if meta[1] ~= 'closed' or meta[2] ~= token then return {'not_mine'} end
local clock = redis.call('TIME')
local now = string.format('%.0f', math.max(
  clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(meta[3] or '0'), tonumber(floor)))
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')

if #redis.call('XRANGE', journal_key, '(' .. previous_id, '+', 'COUNT', 1) > 0 then
  redis.call('UNLINK', journal_key)
end
redis.call('XADD', journal_key, epoch .. '-1', 'at', now, 'records', 'opened ' .. previous_id)
redis.call('HSET', meta_key, 'epoch', epoch, 'sequence', '1', 'time', now, 'server', server, 'state', 'open')
redis.call('HDEL', meta_key, 'token')
return {'opened', epoch .. '-1'}
