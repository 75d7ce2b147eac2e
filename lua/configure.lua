#!lua
-- Purpose: creates a sale, or replaces an existing one's rules and adds SKUs.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers, sales
-- ARGV: seen, sale_id, by (request id and actor), opens_at, closes_at, hold_seconds, max_hold_seconds, name (JSON),
--   max_skus, max_journal_entries, max_journal_bytes, memory_watermark (part of maxmemory), then of each SKU: sku,
--   quantity, limit (0: none)
-- Returns: {word, head, now}; words in this precedence:
--   sale_closed, with opens_at after `now` | quantity_mismatch, with the SKUs' 1-based indexes after `now` |
--   too_many_skus | overloaded, with what is full (journal or memory) after `now` | created | updated
--   or {'rebuilding'}
-- Invariant: stock of a known SKU never moves here: its quantity must equal its first or present allocation.
--- include partition
--- include sale
--- include room

local sale_id, by, opens_at, closes_at, hold_seconds, max_hold_seconds, name, max_skus =
  ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
local full = is_full(tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12]))
local FIRST, WIDTH = 13, 3
local sales_key = KEYS[9]
local sale = load_sale(4)
if sale.missing == 'damaged' then return close_partition() end
local created = sale.missing ~= nil
if not created and state_of(sale) == 'closed' then
  return {'sale_closed', head(), text(now), text(sale.opens_at)}
end

local mismatches = {}
local lines = {}
local position = created and 0 or redis.call('HLEN', sale.stock_key) - 1
for at = FIRST, #ARGV, WIDTH do
  local sku, quantity, limit = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local row = not created and row_of(sale, sku) or nil
  if row then
    if quantity ~= row.allocated and quantity ~= tonumber(row.first_quantity) then
      mismatches[#mismatches + 1] = text((at - FIRST) / WIDTH + 1)
    end
    row.limit = limit
  else
    position = position + 1
    row = {
      allocated = quantity, available = quantity, held = 0, sold = 0, limit = limit,
      first_quantity = text(quantity), position = text(position),
    }
  end
  sale.changed_rows[sku] = row
  lines[#lines + 1] = sku .. '=' .. text(quantity) .. '/' .. text(limit) .. '/' .. row.position
end
if #mismatches > 0 then
  return {'quantity_mismatch', head(), text(now), unpack(mismatches, 1, math.min(#mismatches, 100))}
end
if position > max_skus then return {'too_many_skus', head(), text(now)} end
if full then return {'overloaded', head(), text(now), full} end

append({'configured ' .. sale_id .. ' ' .. opens_at .. ' ' .. closes_at .. ' ' .. hold_seconds .. ' ' ..
  max_hold_seconds .. ' ' .. (#lines > 0 and table.concat(lines, ',') or '-') .. ' ' .. name}, by)
redis.call('HSET', sale.sale_key, 'name', name, 'opens_at', opens_at, 'closes_at', closes_at,
  'hold_seconds', hold_seconds, 'max_hold_seconds', max_hold_seconds, 'updated_at', text(now))
if created then
  redis.call('HSET', sale.sale_key, 'created_at', text(now), 'paused', '0', 'closed', '0')
  -- Every key exists before a buyer comes: a script that first made one in a migrating slot would die halfway.
  redis.call('HSET', sale.stock_key, '', '')
  redis.call('HSET', sale.holds_key, '', '')
  redis.call('HSET', sale.customers_key, '', '')
  redis.call('HSET', sale.answers_key, '', '')
  redis.call('SADD', sales_key, sale_id)
end
save(sale, sale_id)
return {created and 'created' or 'updated', head(), text(now)}
