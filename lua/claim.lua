#!lua flags=allow-oom
-- Purpose: closes a partition for a rebuild that only the holder of the token may carry out.
-- KEYS: meta
-- ARGV: token
-- Returns: {'claimed', epoch, sequence}; 0 and 0 where the server knows nothing of the partition
-- Invariant: a later claim ends an earlier one's right to write.
local meta_key, token = KEYS[1], ARGV[1]

local meta = redis.call('HMGET', meta_key, 'epoch', 'sequence')
redis.call('HSET', meta_key, 'state', 'closed', 'token', token)
return {'claimed', meta[1] or '0', meta[2] or '0'}
