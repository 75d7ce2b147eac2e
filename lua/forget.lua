#!lua flags=allow-oom
-- Purpose: lets go of ended holds of a sale that is long over; Postgres has them.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, retention (milliseconds since the closing), hold_id, …  (at most 500 holds)
-- Returns: {'ok', head, now, forgotten}, {'too_soon', head, now}, {'sale_not_found', head, now} or {'rebuilding'}
-- Invariant: only holds without an order go, and no stock moves; while a sale lives its ids cannot come back as
--   new holds.
--- include partition
--- include sale
--- include known_sale

local retention = tonumber(ARGV[3])
local closed_at = sale.closes_at
if sale.closed then
  closed_at = math.min(closed_at, tonumber(redis.call('HGET', sale.sale_key, 'updated_at')))
end
if now < closed_at + retention then return {'too_soon', head(), text(now)} end

local ended = {}
for i = 4, #ARGV do
  local hold = hold_of(sale, ARGV[i])
  if hold and (hold.status == 'released' or hold.status == 'expired') then ended[#ended + 1] = ARGV[i] end
end
if #ended > 0 then redis.call('HDEL', sale.holds_key, unpack(ended)) end
return {'ok', head(), text(now), text(#ended)}
