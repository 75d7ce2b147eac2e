#!lua flags=no-writes
-- Purpose: reads a sale's rules; its caller reads the stock in the same transaction.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen
-- Returns: {'ok', head, now, state, rules}, the rules as a flat list of field and value; or
--   {'sale_not_found', head, now} or {'rebuilding'}
-- Invariant: changes nothing.
--- include partition
--- include sale
--- include known_sale

return {'ok', head(), text(now), state_of(sale), redis.call('HGETALL', sale.sale_key)}
