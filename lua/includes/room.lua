-- Bounds for what is new. Whatever ends a hold or pays for it goes on past them, so they lie well below what
-- Redis can take. Needs `partition`.

-- Answers what is full: journal (entries, or bytes by a sample) or memory (the part `watermark` of maxmemory, where
-- that is set; without the buffers that Redis does not count), or nil.
local function is_full(max_entries, max_bytes, watermark)
  if redis.call('XLEN', journal_key) >= max_entries then return 'journal' end
  if (redis.call('MEMORY', 'USAGE', journal_key) or 0) >= max_bytes then return 'journal' end
  local memory = redis.call('INFO', 'memory')
  local function bytes(field)
    return tonumber(string.match(memory, '\n' .. field .. ':(%d+)') or 0)
  end
  local limit = bytes('maxmemory')
  if limit > 0 and bytes('used_memory') - bytes('mem_not_counted_for_evict') >= limit * watermark then
    return 'memory'
  end
end
