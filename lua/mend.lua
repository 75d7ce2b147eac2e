#!lua flags=allow-oom
-- Purpose: one kind of repair of a sale; takes no unit from a buyer and ends no hold.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers, sales
-- ARGV: seen, sale_id, by (request id and actor), kind, epoch and repairs (as the auditor found them: differences hold
--   only then), then of each entry: name, found, expected. By kind:
--   rules, holds, customers, answers: a field's value (found '': none), replaced if it still is what was found;
--   skus: limit first_quantity position of a SKU, likewise;
--   counts: what to add to a count; stock: what to add to allocated, held and sold of a SKU (found: '');
--   due: a hold whose place in the due list follows from itself; listed: the sale (found and expected: '')
-- Returns: {'mended', head, now, name, …}, what was repaired; {'changed', head, now} where epoch or repairs are others;
--   {'sale_not_found', head, now} or {'rebuilding'}
-- Invariant: allocated = available + held + sold for every SKU that is touched, and none of them below zero: a SKU
--   that is oversold stays as it is. What differs from what was found is in use, and stays, too.
--- include partition
--- include sale
--- include known_sale

local sale_id, by, kind, epoch_then, repairs_then = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local FIRST, WIDTH = 7, 3
local sales_key = KEYS[9]
local by_difference = kind == 'counts' or kind == 'stock'
if by_difference then
  local repairs = redis.call('HGET', sale.sale_key, 'repairs') or '0'
  if text(epoch) ~= epoch_then or repairs ~= repairs_then then return {'changed', head(), text(now)} end
end

local hashes = {
  rules = sale.sale_key, holds = sale.holds_key, customers = sale.customers_key, answers = sale.answers_key,
}
local writes, mended, before, after = {}, {}, {}, {}

local function mend(name, old, new, ...)
  writes[#writes + 1] = {...}
  mended[#mended + 1] = name
  before[name], after[name] = old, new
end

local function mend_row(sku, row, old, new)
  sale.changed_rows[sku] = row
  mend(sku, old, new)
end

local function same_value(name, found, expected)
  local value = redis.call('HGET', hashes[kind], name) or ''
  if value == found then mend(name, value, expected, 'HSET', hashes[kind], name, expected) end
end

local mends = {rules = same_value, holds = same_value, customers = same_value, answers = same_value}

function mends.skus(sku, found, expected)
  local row = row_of(sale, sku)
  if not row or text(row.limit) .. ' ' .. row.first_quantity .. ' ' .. row.position ~= found then return end
  local limit
  limit, row.first_quantity, row.position = string.match(expected, '^(%d+) (%d+) (%d+)$')
  row.limit = tonumber(limit)
  mend_row(sku, row, found, expected)
end

function mends.counts(name, _, difference)
  local count = tonumber(redis.call('HGET', sale.sale_key, name) or '0')
  local right = count + tonumber(difference)
  mend(name, text(count), text(right), 'HSET', sale.sale_key, name, text(right))
end

function mends.stock(sku, _, differences)
  local row = row_of(sale, sku)
  if not row then return end
  local old = stock_words(row)
  local allocated, held, sold = string.match(differences, '^(-?%d+) (-?%d+) (-?%d+)$')
  row.allocated, row.held, row.sold = row.allocated + allocated, row.held + held, row.sold + sold
  row.available = row.allocated - row.held - row.sold
  if math.min(row.allocated, row.available, row.held, row.sold) < 0 then return end
  if stock_words(row) ~= old then mend_row(sku, row, old, stock_words(row)) end
end

function mends.due(id)
  local hold, member = hold_of(sale, id), sale_id .. '/' .. id
  local old = redis.call('ZSCORE', due_key, member) or ''
  if hold and hold.status == 'held' then
    local expires = text(hold.expires)
    if old ~= expires then mend(id, old, expires, 'ZADD', due_key, expires, member) end
  elseif old ~= '' then
    mend(id, old, '', 'ZREM', due_key, member)
  end
end

function mends.listed()
  if redis.call('SISMEMBER', sales_key, sale_id) == 0 then mend(sale_id, '0', '1', 'SADD', sales_key, sale_id) end
end

for at = FIRST, #ARGV, WIDTH do
  mends[kind](ARGV[at], ARGV[at + 1], ARGV[at + 2])
end
if #mended == 0 then return {'mended', head(), text(now)} end

append({'repaired ' .. sale_id .. ' ' .. kind .. ' ' .. cjson.encode({before = before, after = after})}, by)
for _, write in ipairs(writes) do
  if #write > 0 then redis.call(unpack(write)) end
end
save(sale, sale_id)
if by_difference then redis.call('HINCRBY', sale.sale_key, 'repairs', 1) end
return {'mended', head(), text(now), unpack(mended)}
