#!lua flags=allow-oom
-- Purpose: a restarted or promoted server goes on with the partition, in the next epoch.
-- KEYS: meta, journal
-- ARGV: expected_head (`epoch-sequence`, which the worker has found to be no older than Postgres)
-- Returns: {'adopted', head} or {'changed'} where the partition is not as the worker saw it
-- Invariant: the new epoch's first entry names the head that it continues, so the drain can tell a gap.
local meta_key, journal_key, expected_head = KEYS[1], KEYS[2], ARGV[1]

local meta = redis.call('HMGET', meta_key, 'epoch', 'sequence', 'time', 'state')
if not meta[1] or meta[4] ~= 'open' or meta[1] .. '-' .. meta[2] ~= expected_head then
  return {'changed'}
end
local clock = redis.call('TIME')
local now = string.format('%.0f', math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(meta[3])))
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local epoch = string.format('%.0f', tonumber(meta[1]) + 1)

redis.call('XADD', journal_key, epoch .. '-1', 'at', now, 'records', 'opened ' .. expected_head)
redis.call('HSET', meta_key, 'epoch', epoch, 'sequence', '1', 'time', now, 'server', server)
return {'adopted', epoch .. '-1'}
