#!lua flags=no-writes
-- Purpose: reads a reservation by its id, or a customer's living holds.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, by (hold or customer), id
-- Returns: {'ok', head, now, hold_id, hold, …}, none where nothing matches; or {'sale_not_found', head, now} or
--   {'rebuilding'}
-- Invariant: changes nothing; a hold past its time is not living, swept or not.
--- include partition
--- include sale
--- include known_sale

local by, id = ARGV[2], ARGV[3]

-- Not `unpack`ed at the end: a customer may have more holds than Lua's stack takes.
local found = {'ok', head(), text(now)}
local function add(hold_id, hold)
  found[#found + 1] = hold_id
  found[#found + 1] = pack_hold(hold)
end

if by == 'hold' then
  local hold = hold_of(sale, id)
  if hold then add(id, hold) end
else
  for hold_id in string.gmatch(customer_of(sale, id).living, '[^,]+') do
    local hold = hold_of(sale, hold_id)
    if hold and hold.status == 'held' and now < hold.expires then add(hold_id, hold) end
  end
end
return found
