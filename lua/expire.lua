#!lua flags=allow-oom
-- Purpose: the sweeper's step: gives back the units of holds that are past their time.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, hold_id, …  (at most 500 holds)
-- Returns: {'ok', head, now, expired}, the count of holds that this call ended; or {'rebuilding'}
-- Invariant: only a living hold past its time ends here; its units go back once. A due-list member whose hold is
--   not living is dropped from the list.
--- include partition
--- include sale

local sale_id = ARGV[2]
local sale = load_sale(4)
if sale.missing == 'damaged' then return close_partition() end

local records = {}
local stale = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local hold = not sale.missing and hold_of(sale, id) or nil
  if hold and hold.status == 'held' then
    if now >= hold.expires then
      end_hold(sale, id, hold, 'expired')
      records[#records + 1] = 'expired ' .. sale_id .. ' ' .. id .. ' ' .. hold.customer .. ' ' .. hold.items
    end
  else
    stale[#stale + 1] = sale_id .. '/' .. id
  end
end

if #records > 0 then
  append(records)
  save(sale, sale_id)
end
if #stale > 0 then redis.call('ZREM', due_key, unpack(stale)) end
return {'ok', head(), text(now), text(#records)}
