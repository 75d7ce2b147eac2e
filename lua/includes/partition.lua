-- Opens the partition: lineage, clock, journal. On top of every script.
--
-- KEYS[1..3] meta, journal, due; ARGV[1] the newest journal id that the caller has seen (`epoch-sequence`).
-- Answers {'rebuilding'} and changes nothing unless this server is the one that wrote the partition's state:
-- its meta record is there and open, it was written under this server's replication id, and its head is not
-- older than what the caller has seen. An emptied or stale Redis must never look like "sold out".

local meta_key, journal_key, due_key = KEYS[1], KEYS[2], KEYS[3]

local meta = redis.call('HMGET', meta_key, 'epoch', 'sequence', 'time', 'server', 'state')
local epoch, sequence = tonumber(meta[1]), tonumber(meta[2])
if not epoch or meta[5] ~= 'open' then
  return {'rebuilding'}
end
if meta[4] ~= string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') then
  return {'rebuilding'}
end

-- Lost state: nobody may write here until a worker has rebuilt the partition from Postgres.
-- (A no-writes script may not close it; its caller is refused all the same.)
local function close_partition()
  redis.pcall('HSET', meta_key, 'state', 'closed')
  return {'rebuilding'}
end

do
  local seen_epoch, seen_sequence = string.match(ARGV[1], '^(%d+)-(%d+)$')
  seen_epoch, seen_sequence = tonumber(seen_epoch), tonumber(seen_sequence)
  if seen_epoch > epoch or (seen_epoch == epoch and seen_sequence > sequence) then
    return close_partition()
  end
end

-- Milliseconds by this server's clock, which alone decides; never earlier than what was last written.
local now
do
  local clock = redis.call('TIME')
  now = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(meta[3]))
end

-- Lua prints 1e15 in scientific notation; this does not.
local function text(number)
  return string.format('%.0f', number)
end

local function head()
  return text(epoch) .. '-' .. text(sequence)
end

-- The first write of a script: where memory is short it is refused before anything has changed.
-- Each record is a line of words, its kind first; app/journal.py has the words of each kind. `by`: who did it,
-- where it is an operator's act.
local function append(records, by)
  sequence = sequence + 1
  redis.call('XADD', journal_key, head(), 'at', text(now), 'records', table.concat(records, '\n'),
    unpack(by and {'by', by} or {}))
  redis.call('HSET', meta_key, 'sequence', text(sequence), 'time', text(now))
end
