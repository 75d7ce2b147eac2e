#!lua flags=no-writes
-- Purpose: reads a sale's rules and stock at one moment.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen
-- Returns: {'ok', head, now, state, rules, stock}: rules and stock as flat lists of field and value; or
--   {'sale_not_found', head, now} or {'rebuilding'}
-- Invariant: changes nothing.
--- include partition
--- include sale

local sale = load_sale(4)
if sale.missing == 'damaged' then return close_partition() end
if sale.missing then return {'sale_not_found', head(), text(now)} end
return {
  'ok', head(), text(now), state_of(sale),
  redis.call('HGETALL', sale.sale_key), redis.call('HGETALL', sale.stock_key),
}
