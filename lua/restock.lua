#!lua flags=allow-oom
-- Purpose: adds units to a SKU, once per key.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, by (request id and actor), sku, quantity, key, digest, reason (JSON), max_allocated
-- Returns: {word, head, now, stock}; words in this precedence:
--   sale_not_found | replayed | idempotency_key_reused | sku_not_found | allocation_limit | restocked
--   or {'rebuilding'}; stock: allocated available held sold
-- Invariant: allocated and available grow by the same quantity.
--- include partition
--- include sale
--- include known_sale
--- include movement

local sale_id, by, sku, quantity, key, digest, reason, max_allocated =
  ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
local replayed = replay_movement(sale, key, digest)
if replayed then return replayed end
local row = row_of(sale, sku)
if not row then return {'sku_not_found', head(), text(now)} end
-- Counters stay far below 2^53, past which a double skips integers.
if row.allocated + quantity > max_allocated then
  return {'allocation_limit', head(), text(now), stock_words(row)}
end
return move_stock(sale, sale_id, by, 'restocked', sku, quantity, key, digest, reason)
