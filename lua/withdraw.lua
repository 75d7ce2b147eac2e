#!lua flags=allow-oom
-- Purpose: takes unsold units away from a SKU, once per key.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, by (request id and actor), sku, quantity, key, digest, reason (JSON)
-- Returns: {word, head, now, stock}; words in this precedence:
--   sale_not_found | replayed | idempotency_key_reused | sku_not_found | insufficient_stock | withdrawn
--   or {'rebuilding'}; stock: allocated available held sold
-- Invariant: allocated and available fall by the same quantity; held and sold units stay.
--- include partition
--- include sale
--- include known_sale
--- include movement

local sale_id, by, sku, quantity, key, digest, reason =
  ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local replayed = replay_movement(sale, key, digest)
if replayed then return replayed end
local row = row_of(sale, sku)
if not row then return {'sku_not_found', head(), text(now)} end
if row.available < quantity then
  return {'insufficient_stock', head(), text(now), stock_words(row)}
end
return move_stock(sale, sale_id, by, 'withdrawn', sku, -quantity, key, digest, reason)
