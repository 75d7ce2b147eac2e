#!lua flags=allow-oom
-- Purpose: takes a forgotten hold back from Postgres, so that a very late payment is decided like any other.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, hold_id, hold (packed; released or expired)
-- Returns: {'ok', head, now}, {'sale_not_found', head, now} or {'rebuilding'}
-- Invariant: changes no stock, and no hold that is there.
--- include partition
--- include sale
--- include known_sale

local id, packed = ARGV[3], ARGV[4]
redis.call('HSETNX', sale.holds_key, id, packed)
return {'ok', head(), text(now)}
