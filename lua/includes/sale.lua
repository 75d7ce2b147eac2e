-- One sale as a unit of work: everything is read and decided on Lua tables first, then `append` writes the
-- journal, then `save` writes what changed. Redis does not roll a script back, so nothing may fail after the
-- first write.
--
-- Packed values (spaces separate, as no id has one; `-` is an empty list):
--   stock row     allocated available held sold limit first_quantity position      (limit 0: none)
--   hold          status created expires digest customer items
--     confirmed   … order_status confirmed_at reacquired journal_id payment_reference metadata
--                 (journal_id: with /ordinal where the record is not its entry's first)
--   customer      reservations_made sku=units,… living_hold_id,…

local function load_sale(first)
  local sale = {
    sale_key = KEYS[first], stock_key = KEYS[first + 1], holds_key = KEYS[first + 2],
    customers_key = KEYS[first + 3], answers_key = KEYS[first + 4],
    rows = {}, holds = {}, customers = {}, changed_rows = {}, changed_holds = {}, changed_customers = {},
    due = {}, not_due = {}, counted = {},
  }
  local found = redis.call('EXISTS', unpack(KEYS, first, first + 4))
  if found == 0 then
    sale.missing = 'sale_not_found'
    return sale
  end
  if found < 5 then
    sale.missing = 'damaged'
    return sale
  end
  local rules = redis.call('HMGET', sale.sale_key,
    'opens_at', 'closes_at', 'hold_seconds', 'max_hold_seconds', 'paused', 'closed')
  for i = 1, 6 do
    if not tonumber(rules[i]) then
      sale.missing = 'damaged'
      return sale
    end
  end
  sale.opens_at, sale.closes_at = tonumber(rules[1]), tonumber(rules[2])
  sale.hold_ms, sale.max_hold_ms = tonumber(rules[3]) * 1000, tonumber(rules[4]) * 1000
  sale.paused, sale.closed = rules[5] == '1', rules[6] == '1'
  return sale
end

-- Closed wins, then scheduled, then paused.
local function state_of(sale)
  if sale.closed or now >= sale.closes_at then return 'closed' end
  if now < sale.opens_at then return 'scheduled' end
  if sale.paused then return 'paused' end
  return 'open'
end

-- A counter below zero is wrong, but must be readable for the auditor to say so.
local ROW = '^(-?%d+) (-?%d+) (-?%d+) (-?%d+) (%d+) (%d+) (%d+)$'

local function parse_row(packed)
  local allocated, available, held, sold, limit, first_quantity, position = string.match(packed, ROW)
  return {
    allocated = tonumber(allocated), available = tonumber(available), held = tonumber(held),
    sold = tonumber(sold), limit = tonumber(limit), first_quantity = first_quantity, position = position,
  }
end

-- A SKU's row, or nil if the sale has no such SKU.
local function row_of(sale, sku)
  local row = sale.rows[sku]
  if row == nil then
    local packed = redis.call('HGET', sale.stock_key, sku)
    row = packed and parse_row(packed)
    sale.rows[sku] = row
  end
  return row or nil
end

local function stock_words(row)
  return text(row.allocated) .. ' ' .. text(row.available) .. ' ' .. text(row.held) .. ' ' .. text(row.sold)
end

local function pack_row(row)
  return stock_words(row) .. ' ' .. text(row.limit) .. ' ' .. row.first_quantity .. ' ' .. row.position
end

-- Moves units: delta names how each counter of the row changes.
local function move(sale, sku, delta)
  local row = row_of(sale, sku)
  for counter, units in pairs(delta) do
    row[counter] = row[counter] + units
  end
  sale.changed_rows[sku] = row
end

local function parse_hold(packed)
  local status, created, expires, digest, customer, items, order =
    string.match(packed, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) ?(.*)$')
  local hold = {
    status = status, created = tonumber(created), expires = tonumber(expires), digest = digest,
    customer = customer, items = items,
  }
  if status == 'confirmed' then
    hold.order_status, hold.confirmed_at, hold.reacquired, hold.journal_id, hold.reference, hold.metadata =
      string.match(order, '^(%S+) (%S+) (%S+) (%S+) (%S+) (.*)$')
  end
  return hold
end

local function pack_hold(hold)
  local packed = hold.status .. ' ' .. text(hold.created) .. ' ' .. text(hold.expires) .. ' ' ..
    hold.digest .. ' ' .. hold.customer .. ' ' .. hold.items
  if hold.status == 'confirmed' then
    packed = packed .. ' ' .. hold.order_status .. ' ' .. hold.confirmed_at .. ' ' .. hold.reacquired .. ' ' ..
      hold.journal_id .. ' ' .. hold.reference .. ' ' .. hold.metadata
  end
  return packed
end

-- A hold by id, or nil.
local function hold_of(sale, id)
  local hold = sale.holds[id]
  if hold == nil then
    local packed = redis.call('HGET', sale.holds_key, id)
    hold = packed and parse_hold(packed)
    sale.holds[id] = hold
  end
  return hold or nil
end

local function put_hold(sale, id, hold)
  sale.holds[id] = hold
  sale.changed_holds[id] = hold
end

-- The lists stay the text that they are: a customer may have hundreds of living holds, and of these one changes.
-- `units`: those that were looked at, by SKU.
local function parse_customer(packed)
  if not packed then
    return {made = 0, listed = ',-', living = ',-', units = {}}
  end
  -- No pattern: that would look at every character by itself.
  local first = string.find(packed, ' ', 1, true)
  local second = string.find(packed, ' ', first + 1, true)
  return {
    made = tonumber(string.sub(packed, 1, first - 1)), listed = ',' .. string.sub(packed, first + 1, second - 1),
    living = ',' .. string.sub(packed, second + 1), units = {},
  }
end

-- Where `,word` is in the list `,word,…`, followed by `terminator`: first and last place.
local function find_word(list, word, terminator)
  if terminator == ',' then list = list .. ',' end  -- the last word has none behind it
  return string.find(list, ',' .. word .. terminator, 1, true)
end

-- Units of the SKU that the customer has, held or bought.
local function units_of(customer, sku)
  local units = customer.units[sku]
  if not units then
    local _, last = find_word(customer.listed, sku, '=')
    units = last and tonumber(string.match(customer.listed, '^%d+', last + 1)) or 0
    customer.units[sku] = units
  end
  return units
end

-- A list without the words from `first` on, up to the next comma.
local function cut(list, first)
  local next_word = string.find(list, ',', first + 1, true)
  return string.sub(list, 1, first - 1) .. (next_word and string.sub(list, next_word) or '')
end

local function add_living(customer, id)
  customer.living = (customer.living == ',-' and '' or customer.living) .. ',' .. id
end

local function drop_living(customer, id)
  local first = find_word(customer.living, id, ',')
  if first then customer.living = cut(customer.living, first) end
end

local function pack_customer(customer)
  local listed = customer.listed
  local changed = {}
  for sku, units in pairs(customer.units) do
    local first = find_word(listed, sku, '=')
    if first then listed = cut(listed, first) end
    if units ~= 0 then changed[#changed + 1] = ',' .. sku .. '=' .. text(units) end
  end
  if listed == ',-' then listed = '' end
  listed = listed .. table.concat(changed)
  local living = customer.living
  return text(customer.made) .. ' ' .. (listed ~= '' and string.sub(listed, 2) or '-') .. ' ' ..
    (living ~= '' and string.sub(living, 2) or '-')
end

local function customer_of(sale, id)
  local customer = sale.customers[id]
  if not customer then
    customer = parse_customer(redis.call('HGET', sale.customers_key, id))
    sale.customers[id] = customer
  end
  return customer
end

local function count(sale, customer_id, sku, units)
  local customer = customer_of(sale, customer_id)
  customer.units[sku] = units_of(customer, sku) + units
  sale.changed_customers[customer_id] = customer
end

-- Calls f(sku, quantity) for each line of `sku=quantity,…`; stops at and returns the first true result.
local function each_item(items, f)
  for sku, quantity in string.gmatch(items, '([^=,]+)=(%d+)') do
    local stop = f(sku, tonumber(quantity))
    if stop then return stop end
  end
end

-- A living hold's units go back to where buyers find them. `status`: released or expired.
local function end_hold(sale, id, hold, status)
  each_item(hold.items, function(sku, quantity)
    move(sale, sku, {available = quantity, held = -quantity})
    count(sale, hold.customer, sku, -quantity)
  end)
  hold.status = status
  put_hold(sale, id, hold)
  drop_living(customer_of(sale, hold.customer), id)
  sale.not_due[#sale.not_due + 1] = id
  sale.counted[status] = (sale.counted[status] or 0) + 1
end

-- HSET of a table's packed values, in calls that `unpack` can take.
local function write_fields(key, changed, pack)
  local fields = {}
  for field, value in pairs(changed) do
    fields[#fields + 1] = field
    fields[#fields + 1] = pack(value)
    if #fields == 2000 then
      redis.call('HSET', key, unpack(fields))
      fields = {}
    end
  end
  if #fields > 0 then redis.call('HSET', key, unpack(fields)) end
end

-- The last phase: writes what changed. `sale_id` names the sale's members of the due list.
local function save(sale, sale_id)
  write_fields(sale.stock_key, sale.changed_rows, pack_row)
  write_fields(sale.holds_key, sale.changed_holds, pack_hold)
  write_fields(sale.customers_key, sale.changed_customers, pack_customer)
  for counter, times in pairs(sale.counted) do
    redis.call('HINCRBY', sale.sale_key, counter, times)
  end
  local due = {}
  for id, expires in pairs(sale.due) do
    due[#due + 1] = text(expires)
    due[#due + 1] = sale_id .. '/' .. id
  end
  if #due > 0 then redis.call('ZADD', due_key, unpack(due)) end
  local not_due = {}
  for i, id in ipairs(sale.not_due) do not_due[i] = sale_id .. '/' .. id end
  if #not_due > 0 then redis.call('ZREM', due_key, unpack(not_due)) end
end
