#!lua flags=allow-oom
-- Purpose: a write of no meaning, right behind a script, so that the WAIT that follows covers all that it has read.
-- KEYS: meta
-- ARGV: none
-- Returns: {'touched'} or {'rebuilding'} where the server knows nothing of the partition
-- Invariant: an emptied server stays empty. (WAIT looks at what its own connection wrote: after a replay, which
--   writes nothing, it would count replicas that have never heard of the hold.)
local meta_key = KEYS[1]

if redis.call('EXISTS', meta_key) == 0 then return {'rebuilding'} end
redis.call('HSET', meta_key, 'touched', '')
return {'touched'}
