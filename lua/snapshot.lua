#!lua flags=no-writes
-- Purpose: reads a sale's rules and stock at one moment.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen
-- Returns: {'ok', head, now, state, rules, stock}: rules and stock as flat lists of field and value; or
--   {'sale_not_found', head, now} or {'rebuilding'}
-- Invariant: changes nothing.
--- include partition
--- include sale
--- include known_sale

return {
  'ok', head(), text(now), state_of(sale),
  redis.call('HGETALL', sale.sale_key), redis.call('HGETALL', sale.stock_key),
}
