#!lua
-- Purpose: decides a batch of reservation requests in order of arrival, all items of a cart or none.
-- KEYS: meta, journal, due, then sale, stock, holds, customers, answers of each sale in the batch
-- ARGV: seen, max_journal_entries, max_journal_bytes, memory_watermark (part of maxmemory),
--   max_reservations_per_customer, max_reservations_per_sale, then of each request
--   sale_index (1-based), sale_id, hold_id, previous_hold_id (or ''), customer_id, digest, items (sku=quantity,…)
-- Returns: {'ok', head, now, answer, …}, an answer of words per request; in this precedence:
--   sale_not_found | replayed hold_id hold | idempotency_key_reused | sale_closed opens_at |
--   sale_not_open opens_at | sale_paused opens_at | sku_not_found sku | sold_out sku requested available held |
--   customer_limit_reached sku limit taken | rate_limited |
--   overloaded what (journal, memory or sale) | held hold_id created expires
--   or {'rebuilding'}
-- Invariant: allocated = available + held + sold; a unit is held by at most one reservation.
--- include partition
--- include sale
--- include room

local full = is_full(tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
local max_per_customer, max_per_sale = tonumber(ARGV[5]), tonumber(ARGV[6])
local FIRST, WIDTH = 7, 7

local sales = {}
for first = 4, #KEYS, 5 do
  local sale = load_sale(first)
  if sale.missing == 'damaged' then return close_partition() end
  sales[#sales + 1] = sale
end

-- One HMGET for the batch instead of a HGET per request.
local function prefetch(key, cache, ids, parse)
  for first = 1, #ids, 4000 do
    local last = math.min(first + 3999, #ids)
    local values = redis.call('HMGET', key, unpack(ids, first, last))
    for i, value in ipairs(values) do
      cache[ids[first + i - 1]] = parse(value)
    end
  end
end

for index, sale in ipairs(sales) do
  if not sale.missing then
    local ids, customers = {}, {}
    for at = FIRST, #ARGV, WIDTH do
      if tonumber(ARGV[at]) == index then
        ids[#ids + 1] = ARGV[at + 2]
        if ARGV[at + 3] ~= '' then ids[#ids + 1] = ARGV[at + 3] end
        customers[#customers + 1] = ARGV[at + 4]
      end
    end
    prefetch(sale.holds_key, sale.holds, ids, function(packed) return packed and parse_hold(packed) end)
    prefetch(sale.customers_key, sale.customers, customers, parse_customer)
    sale.full = redis.call('HLEN', sale.holds_key) > max_per_sale and 'sale'
  end
end

-- A replay beats every refusal: a winner who retries is never told "sold out".
local function replay(sale, id, digest)
  local hold = id ~= '' and hold_of(sale, id)
  if not hold then return nil end
  if hold.digest ~= digest then return 'idempotency_key_reused' end
  return 'replayed ' .. id .. ' ' .. pack_hold(hold)
end

local REFUSED_STATES = {closed = 'sale_closed ', scheduled = 'sale_not_open ', paused = 'sale_paused '}
local function refuse_state(sale)
  local word = REFUSED_STATES[state_of(sale)]
  return word and word .. text(sale.opens_at)
end

local function refuse_items(sale, customer, items)
  return each_item(items, function(sku)
    if not row_of(sale, sku) then return 'sku_not_found ' .. sku end
  end) or each_item(items, function(sku, quantity)
    local row = row_of(sale, sku)
    if row.available < quantity then
      return 'sold_out ' .. sku .. ' ' .. text(quantity) .. ' ' .. text(row.available) .. ' ' .. text(row.held)
    end
  end) or each_item(items, function(sku, quantity)
    local limit, taken = row_of(sale, sku).limit, units_of(customer, sku)
    if limit > 0 and taken + quantity > limit then
      return 'customer_limit_reached ' .. sku .. ' ' .. text(limit) .. ' ' .. text(taken)
    end
  end)
end

local records = {}

local function reserve(sale, sale_id, id, customer_id, digest, items)
  local customer = customer_of(sale, customer_id)
  local refusal = refuse_state(sale) or refuse_items(sale, customer, items)
  if refusal then return refusal end
  if customer.made >= max_per_customer then return 'rate_limited' end
  if full or sale.full then return 'overloaded ' .. (full or sale.full) end
  each_item(items, function(sku, quantity)
    move(sale, sku, {available = -quantity, held = quantity})
    count(sale, customer_id, sku, quantity)
  end)
  customer.made = customer.made + 1
  add_living(customer, id)
  local expires = now + sale.hold_ms
  put_hold(sale, id, {
    status = 'held', created = now, expires = expires, digest = digest, customer = customer_id, items = items,
  })
  sale.due[id] = expires
  sale.counted.reserved = (sale.counted.reserved or 0) + 1
  records[#records + 1] =
    'held ' .. sale_id .. ' ' .. id .. ' ' .. customer_id .. ' ' .. text(expires) .. ' ' .. digest .. ' ' .. items
  return 'held ' .. id .. ' ' .. text(now) .. ' ' .. text(expires)
end

local answers = {}
local sale_ids = {}
for at = FIRST, #ARGV, WIDTH do
  local sale, sale_id, id, previous_id = sales[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local customer_id, digest, items = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
  sale_ids[sale] = sale_id
  answers[#answers + 1] = sale.missing
    or replay(sale, previous_id, digest)
    or replay(sale, id, digest)
    or reserve(sale, sale_id, id, customer_id, digest, items)
end

if #records > 0 then
  append(records)
  for sale, sale_id in pairs(sale_ids) do
    if not sale.missing then save(sale, sale_id) end
  end
end
return {'ok', head(), text(now), unpack(answers)}
