#!lua flags=allow-oom
-- Purpose: one write of a rebuild.
-- KEYS: meta, target
-- ARGV: token, verb (delete, hash, set or sorted), then fields and values, members, or scores and members
-- Returns: {'restored'} or {'not_mine'} where the partition is open or another rebuild has claimed it
-- Invariant: nothing is written unless the partition is closed and the token is the caller's.
local meta_key, target, token, verb = KEYS[1], KEYS[2], ARGV[1], ARGV[2]

local meta = redis.call('HMGET', meta_key, 'state', 'token')
if meta[1] ~= 'closed' or meta[2] ~= token then return {'not_mine'} end

if verb == 'delete' then
  -- Not DEL: it would free a million holds at once, while everybody waits.
  redis.call('UNLINK', target)
else
  redis.call(({hash = 'HSET', set = 'SADD', sorted = 'ZADD'})[verb], target, unpack(ARGV, 3))
end
return {'restored'}
