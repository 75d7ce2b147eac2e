#!lua flags=allow-oom
-- Purpose: turns a hold into an order; after expiry takes the units again if they are still there.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, hold_id, payment_reference, metadata (opaque bytes)
-- Returns: {word, head, now, hold}; words in this precedence:
--   sale_not_found | reservation_not_found | confirmed_already (same reference: a replay) |
--   reservation_confirmed (another reference) | reservation_released | reservation_expired (final: refund) |
--   confirmed
--   or {'rebuilding'}
-- Invariant: one reservation makes at most one order; a refund answer is final for its payment reference.
--- include partition
--- include sale
--- include known_sale
--- include known_hold

local sale_id, reference, metadata = ARGV[2], ARGV[4], ARGV[5]

if hold.status == 'confirmed' then
  return answer(hold.reference == reference and 'confirmed_already' or 'reservation_confirmed')
end
if hold.status == 'released' then return answer('reservation_released') end

local unswept = hold.status == 'held'
local late = not unswept or now >= hold.expires
local refund = 'refund ' .. id .. ' ' .. reference
if late and redis.call('HEXISTS', sale.answers_key, refund) == 1 then
  return answer('reservation_expired')
end

-- Are the units still there, within the customer's limit? An unswept hold's own units count as there.
local function gone()
  local customer = customer_of(sale, hold.customer)
  return each_item(hold.items, function(sku, quantity)
    local row = row_of(sale, sku)
    local others = units_of(customer, sku) - (unswept and quantity or 0)
    return (not unswept and row.available < quantity) or (row.limit > 0 and others + quantity > row.limit)
  end)
end

if late and gone() then
  append({'refund_required ' .. sale_id .. ' ' .. id .. ' ' .. hold.customer .. ' ' .. hold.items .. ' ' .. reference})
  redis.call('HSET', sale.answers_key, refund, text(now))
  return answer('reservation_expired')
end

each_item(hold.items, function(sku, quantity)
  if unswept then
    move(sale, sku, {held = -quantity, sold = quantity})
  else
    move(sale, sku, {available = -quantity, sold = quantity})
    count(sale, hold.customer, sku, quantity)
  end
end)
drop_living(customer_of(sale, hold.customer), id)
sale.changed_customers[hold.customer] = customer_of(sale, hold.customer)
sale.not_due[1] = id
sale.counted.confirmed = 1
hold.status, hold.order_status, hold.reacquired = 'confirmed', 'confirmed', late and '1' or '0'
hold.confirmed_at, hold.reference, hold.metadata = text(now), reference, metadata
hold.journal_id = text(epoch) .. '-' .. text(sequence + 1)
put_hold(sale, id, hold)

append({'confirmed ' .. sale_id .. ' ' .. id .. ' ' .. hold.customer .. ' ' .. hold.items .. ' ' ..
  hold.reacquired .. ' ' .. reference .. ' ' .. metadata})
save(sale, sale_id)
return answer('confirmed')
