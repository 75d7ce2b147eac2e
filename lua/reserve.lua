#!lua
-- Purpose: decides a batch of reservation requests, all items of a cart or none; those of one sale in order of arrival.
-- KEYS: meta, journal, due, then sale, stock, holds, customers, answers of each sale in the batch
-- ARGV: seen, max_journal_entries, max_journal_bytes, memory_watermark (part of maxmemory),
--   max_reservations_per_customer, max_reservations_per_sale, then of each sale, in the order of KEYS,
--   sale_id, requests, and of each of its requests
--   hold_id, previous_hold_id (or ''), customer_id, digest, items (sku=quantity,…)
-- Returns: {'ok', head, now, answer, …}, an answer of words per request; in this precedence:
--   sale_not_found | replayed hold_id hold | idempotency_key_reused | sale_closed opens_at |
--   sale_not_open opens_at | sale_paused opens_at | sku_not_found sku | sold_out sku requested available held |
--   customer_limit_reached sku limit taken | rate_limited |
--   overloaded what (journal, memory or sale) | held created expires
--   or {'rebuilding'}
-- Invariant: allocated = available + held + sold; a unit is held by at most one reservation.
--
-- This is the one script that runs for everybody, so it keeps packed values as strings, and builds each string once.
--- include partition
--- include sale
--- include sales
--- include prefetch
--- include room

local max_per_customer, max_per_sale = tonumber(ARGV[5]), tonumber(ARGV[6])
local WIDTH = 5
local now_text = text(now)

local sales = load_sales(7, WIDTH)
if not sales then return close_partition() end

local REFUSED_STATES = {closed = 'sale_closed ', scheduled = 'sale_not_open ', paused = 'sale_paused '}

local function read(sale)
  local ids, customers, count, people = {}, {}, 0, 0
  for at = sale.first, sale.last, WIDTH do
    count = count + 1
    ids[count] = ARGV[at]
    if ARGV[at + 1] ~= '' then
      count = count + 1
      ids[count] = ARGV[at + 1]
    end
    people = people + 1
    customers[people] = ARGV[at + 2]
  end
  prefetch(sale.holds_key, sale.holds, ids)
  prefetch(sale.customers_key, sale.customers, customers)
  local word = REFUSED_STATES[state_of(sale)]
  sale.refusal = word and word .. text(sale.opens_at)
  sale.expires = text(now + sale.hold_ms)
  sale.times = now_text .. ' ' .. sale.expires
  sale.new, sale.due_list, sale.made = {}, {}, 0
end

-- What has no room for another hold, or false; looked at when the first one would be made: refusals need none of it.
local full
local function full_for(sale)
  if full == nil then full = is_full(tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])) or false end
  if sale.full == nil then
    sale.full = full or redis.call('HLEN', sale.holds_key) > max_per_sale and 'sale'
  end
  return sale.full
end

-- A cart's lines as {sku, quantity, …}; most carts of a sale are the same.
local carts = {}
local function cart_of(items)
  local cart = carts[items]
  if not cart then
    cart = {}
    each_item(items, function(sku, quantity)
      cart[#cart + 1] = sku
      cart[#cart + 1] = quantity
    end)
    carts[items] = cart
  end
  return cart
end

-- A customer who is known, to be read and changed; nil for a new one.
local function known_customer(sale, id)
  local customer = sale.customers[id]
  if type(customer) == 'string' then
    customer = parse_customer(customer)
    sale.customers[id] = customer
  end
  return customer or nil
end

-- A replay beats every refusal: a winner who retries is never told "sold out".
local function replay(sale, id, digest)
  local packed = sale.holds[id]
  if not packed then return nil end
  if string.match(packed, '^%S+ %S+ %S+ (%S+)') ~= digest then return 'idempotency_key_reused' end
  return 'replayed ' .. id .. ' ' .. packed
end

-- Until the row changes, everybody who asks for as much is told the same.
local function sold_out(row, sku, quantity)
  local said = row.said or {}
  row.said = said
  said[quantity] = said[quantity] or
    'sold_out ' .. sku .. ' ' .. text(quantity) .. ' ' .. text(row.available) .. ' ' .. text(row.held)
  return said[quantity]
end

local function refuse_items(sale, customer, cart)
  for i = 1, #cart, 2 do
    if not row_of(sale, cart[i]) then return 'sku_not_found ' .. cart[i] end
  end
  for i = 1, #cart, 2 do
    local row = row_of(sale, cart[i])
    if row.available < cart[i + 1] then return sold_out(row, cart[i], cart[i + 1]) end
  end
  for i = 1, #cart, 2 do
    local limit = row_of(sale, cart[i]).limit
    if limit > 0 then
      local taken = customer and units_of(customer, cart[i]) or 0
      if taken + cart[i + 1] > limit then
        return 'customer_limit_reached ' .. cart[i] .. ' ' .. text(limit) .. ' ' .. text(taken)
      end
    end
  end
end

-- Counts a new hold. A new customer is packed at once, as `pack_customer` would.
local function take(sale, customer_id, customer, id, items, cart)
  for i = 1, #cart, 2 do
    local row = sale.rows[cart[i]]
    row.available, row.held, row.said = row.available - cart[i + 1], row.held + cart[i + 1], nil
    sale.changed_rows[cart[i]] = row
    if customer then customer.units[cart[i]] = units_of(customer, cart[i]) + cart[i + 1] end
  end
  if customer then
    customer.made = customer.made + 1
    add_living(customer, id)
  else
    sale.customers[customer_id] = '1 ' .. items .. ' ' .. id
  end
  sale.changed_customers[customer_id] = true
end

local records, recorded = {}, 0

local function reserve(sale, id, customer_id, digest, items)
  if sale.refusal then return sale.refusal end
  local cart, customer = cart_of(items), known_customer(sale, customer_id)
  local refusal = refuse_items(sale, customer, cart)
  if refusal then return refusal end
  if customer and customer.made >= max_per_customer then return 'rate_limited' end
  if full_for(sale) then return 'overloaded ' .. sale.full end
  take(sale, customer_id, customer, id, items, cart)
  local packed = 'held ' .. sale.times .. ' ' .. digest .. ' ' .. customer_id .. ' ' .. items
  local new, due, at = sale.new, sale.due_list, 2 * sale.made
  sale.made = sale.made + 1
  sale.holds[id], new[at + 1], new[at + 2] = packed, id, packed
  due[at + 1], due[at + 2] = sale.expires, sale.id .. '/' .. id
  recorded = recorded + 1
  records[recorded] = 'held ' .. sale.id .. ' ' .. id .. ' ' .. customer_id .. ' ' .. sale.expires .. ' ' .. digest ..
    ' ' .. items
  return 'held ' .. sale.times
end

local answers, answered = {'ok', '', now_text}, 3
for _, sale in ipairs(sales) do
  if not sale.missing then read(sale) end
  for at = sale.first, sale.last, WIDTH do
    local id, previous_id, digest = ARGV[at], ARGV[at + 1], ARGV[at + 3]
    answered = answered + 1
    answers[answered] = sale.missing
      or (previous_id ~= '' and replay(sale, previous_id, digest))
      or replay(sale, id, digest)
      or reserve(sale, id, ARGV[at + 2], digest, ARGV[at + 4])
  end
end

local function call_in_pieces(command, key, words)
  for first = 1, #words, 4000 do
    redis.call(command, key, unpack(words, first, math.min(first + 3999, #words)))
  end
end

local function pack_changed(customer)
  return type(customer) == 'string' and customer or pack_customer(customer)
end

if recorded > 0 then
  append(records)
  for _, sale in ipairs(sales) do
    if not sale.missing and sale.made > 0 then
      for customer_id in pairs(sale.changed_customers) do
        sale.changed_customers[customer_id] = sale.customers[customer_id]
      end
      write_fields(sale.stock_key, sale.changed_rows, pack_row)
      call_in_pieces('HSET', sale.holds_key, sale.new)
      write_fields(sale.customers_key, sale.changed_customers, pack_changed)
      redis.call('HINCRBY', sale.sale_key, 'reserved', sale.made)
      call_in_pieces('ZADD', due_key, sale.due_list)
    end
  end
end
answers[2] = head()
return answers
