#!lua flags=allow-oom
-- Purpose: compensation: takes an order back; its units return to the stock or leave the allocation.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, by (request id and actor), hold_id, restock (1 or 0), reason (JSON)
-- Returns: {word, head, now, hold}; words in this precedence:
--   sale_not_found | order_not_found | cancelled_already | cancelled
--   or {'rebuilding'}
-- Invariant: an order's units leave `sold` once; the customer's limit gets them back.
--- include partition
--- include sale
--- include known_sale

local sale_id, by, id, restock, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6]
local hold = hold_of(sale, id)
if not hold or hold.status ~= 'confirmed' then return {'order_not_found', head(), text(now)} end

local function answer(word)
  return {word, head(), text(now), pack_hold(hold)}
end

if hold.order_status == 'cancelled' then return answer('cancelled_already') end

each_item(hold.items, function(sku, quantity)
  move(sale, sku, {sold = -quantity, [restock and 'available' or 'allocated'] = restock and quantity or -quantity})
  count(sale, hold.customer, sku, -quantity)
end)
hold.order_status = 'cancelled'
hold.journal_id = text(epoch) .. '-' .. text(sequence + 1)
put_hold(sale, id, hold)
sale.counted.cancelled = 1

append({'cancelled ' .. sale_id .. ' ' .. id .. ' ' .. hold.customer .. ' ' .. hold.items .. ' ' ..
  (restock and '1' or '0') .. ' ' .. reason}, by)
save(sale, sale_id)
return answer('cancelled')
