#!lua flags=allow-oom
-- Purpose: turns holds into orders, in order of arrival; after expiry takes the units again if they are still there.
-- KEYS: meta, journal, due, then sale, stock, holds, customers, answers of each sale in the batch
-- ARGV: seen, then of each sale, in the order of KEYS, sale_id, requests, and of each of its requests
--   hold_id, payment_reference, metadata (opaque bytes)
-- Returns: {'ok', head, now, answer, …}, an answer of words per request; in this precedence:
--   sale_not_found | reservation_not_found | confirmed_already hold (same reference: a replay) |
--   reservation_confirmed (another reference) | reservation_released | reservation_expired (final: refund) |
--   confirmed hold
--   or {'rebuilding'}
-- Invariant: one reservation makes at most one order; a refund answer is final for its payment reference.
--- include partition
--- include sale
--- include sales
--- include prefetch

local WIDTH = 3
local sales = load_sales(2, WIDTH)
if not sales then return close_partition() end

local records = {}
local place = text(epoch) .. '-' .. text(sequence + 1)

local function read(sale)
  local ids, customers = {}, {}
  for at = sale.first, sale.last, WIDTH do ids[#ids + 1] = ARGV[at] end
  prefetch(sale.holds_key, sale.holds, ids, function(packed) return packed and parse_hold(packed) end)
  for _, hold in pairs(sale.holds) do
    if hold then customers[hold.customer] = true end
  end
  prefetch(sale.customers_key, sale.customers, members(customers), parse_customer)
  sale.refunds = {}
end

local function is_refunded(sale, refund)
  return sale.refunds[refund] or redis.call('HEXISTS', sale.answers_key, refund) == 1
end

-- Are the units still there, within the customer's limit? An unswept hold's own units count as there.
local function gone(sale, hold, unswept)
  local customer = customer_of(sale, hold.customer)
  return each_item(hold.items, function(sku, quantity)
    local row = row_of(sale, sku)
    local others = units_of(customer, sku) - (unswept and quantity or 0)
    return (not unswept and row.available < quantity) or (row.limit > 0 and others + quantity > row.limit)
  end)
end

local function take(sale, id, hold, unswept)
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
  sale.not_due[#sale.not_due + 1] = id
  sale.counted.confirmed = (sale.counted.confirmed or 0) + 1
end

local function confirm(sale, id, reference, metadata)
  local hold = hold_of(sale, id)
  if not hold then return 'reservation_not_found' end
  if hold.status == 'confirmed' then
    return hold.reference == reference and 'confirmed_already ' .. pack_hold(hold) or 'reservation_confirmed'
  end
  if hold.status == 'released' then return 'reservation_released' end

  local unswept = hold.status == 'held'
  local late = not unswept or now >= hold.expires
  local refund = 'refund ' .. id .. ' ' .. reference
  if late and is_refunded(sale, refund) then return 'reservation_expired' end
  local about = sale.id .. ' ' .. id .. ' ' .. hold.customer .. ' ' .. hold.items .. ' '
  if late and gone(sale, hold, unswept) then
    records[#records + 1] = 'refund_required ' .. about .. reference
    sale.refunds[refund] = true
    return 'reservation_expired'
  end

  take(sale, id, hold, unswept)
  hold.status, hold.order_status, hold.reacquired = 'confirmed', 'confirmed', late and '1' or '0'
  hold.confirmed_at, hold.reference, hold.metadata = text(now), reference, metadata
  hold.journal_id = place .. (#records > 0 and '/' .. text(#records) or '')
  put_hold(sale, id, hold)
  records[#records + 1] = 'confirmed ' .. about .. hold.reacquired .. ' ' .. reference .. ' ' .. metadata
  return 'confirmed ' .. pack_hold(hold)
end

local answers = {'ok', '', text(now)}
for _, sale in ipairs(sales) do
  if not sale.missing then read(sale) end
  for at = sale.first, sale.last, WIDTH do
    answers[#answers + 1] = sale.missing or confirm(sale, ARGV[at], ARGV[at + 1], ARGV[at + 2])
  end
end

if #records > 0 then
  append(records)
  for _, sale in ipairs(sales) do
    if not sale.missing then
      for refund in pairs(sale.refunds) do redis.call('HSET', sale.answers_key, refund, text(now)) end
      save(sale, sale.id)
    end
  end
end
answers[2] = head()
return answers
