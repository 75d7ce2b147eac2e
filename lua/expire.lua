#!lua flags=allow-oom
-- Purpose: the sweeper's step: gives back the units of holds that are past their time.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, work (what this call may do: a hold counts one, and so does each line of its cart),
--   hold_id, …  (at most 500 holds)
-- Returns: {'ok', head, now, expired, seen_to}, the counts of holds that this call ended and of those that it took
--   care of: the first ones, as far as the work goes, and at least one; or {'rebuilding'}
-- Invariant: only a living hold past its time ends here; its units go back once. A due-list member whose hold is
--   not living is dropped from the list.
--- include partition
--- include sale
--- include prefetch

local sale_id, work = ARGV[2], tonumber(ARGV[3])
local ids = {unpack(ARGV, 4)}
local sale = load_sale(4)
if sale.missing == 'damaged' then return close_partition() end

local function is_due(hold)
  return hold and hold.status == 'held' and now >= hold.expires
end

local seen_to = 0
local customers, skus = {}, {}
if not sale.missing then
  prefetch(sale.holds_key, sale.holds, ids, function(packed) return packed and parse_hold(packed) end)
end
for i, id in ipairs(ids) do
  local hold, cost = sale.holds[id], 1
  if is_due(hold) then
    customers[hold.customer] = true
    each_item(hold.items, function(sku)
      skus[sku] = true
      cost = cost + 1
    end)
  end
  if cost > work and i > 1 then break end
  work = work - cost
  seen_to = i
end
prefetch(sale.customers_key, sale.customers, members(customers), parse_customer)
prefetch(sale.stock_key, sale.rows, members(skus), function(packed) return packed and parse_row(packed) end)

local records = {}
local stale = {}
for i = 1, seen_to do
  local id = ids[i]
  local hold = sale.holds[id]
  if is_due(hold) then
    end_hold(sale, id, hold, 'expired')
    records[#records + 1] = 'expired ' .. sale_id .. ' ' .. id .. ' ' .. hold.customer .. ' ' .. hold.items
  elseif not (hold and hold.status == 'held') then
    stale[#stale + 1] = sale_id .. '/' .. id
  end
end

if #records > 0 then
  append(records)
  save(sale, sale_id)
end
if #stale > 0 then redis.call('ZREM', due_key, unpack(stale)) end
return {'ok', head(), text(now), text(#records), text(seen_to)}
