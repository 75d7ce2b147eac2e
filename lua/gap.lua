#!lua flags=allow-oom
-- Purpose: closes a partition whose journal lacks what Postgres does not have; only a person may open it.
-- KEYS: meta
-- ARGV: epoch in which the drain found the gap, or ''; token of the rebuild that found it, or ''
-- Returns: {'gap'} or {'changed'} where the partition has been closed, claimed or opened anew meanwhile
-- Invariant: a late report does not close a partition that was rebuilt, nor disturb a rebuild.
local meta_key, epoch, token = KEYS[1], ARGV[1], ARGV[2]

local meta = redis.call('HMGET', meta_key, 'epoch', 'state', 'token')
if token ~= '' then
  if meta[3] ~= token then return {'changed'} end
elseif meta[2] ~= 'open' or tonumber(meta[1]) > tonumber(epoch) then
  return {'changed'}
end
redis.call('HSET', meta_key, 'state', 'gap')
redis.call('HDEL', meta_key, 'token')
return {'gap'}
