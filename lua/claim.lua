#!lua flags=allow-oom
-- Purpose: closes a partition, which only the holder of the token may then write and open.
-- KEYS: meta
-- ARGV: token
-- Returns: {'claimed', epoch, sequence, state}: as they were; 0, 0 and '' where the server knows nothing of the partition
-- Invariant: a later claim ends an earlier one's right to write.
local meta_key, token = KEYS[1], ARGV[1]

local meta = redis.call('HMGET', meta_key, 'epoch', 'sequence', 'state')
redis.call('HSET', meta_key, 'state', 'closed', 'token', token)
return {'claimed', meta[1] or '0', meta[2] or '0', meta[3] or ''}
