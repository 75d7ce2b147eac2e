#!lua flags=allow-oom
-- Purpose: lets go of ended holds of a sale that is long over; Postgres has them.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, retention (milliseconds since the closing), hold_id, …  (at most 500 holds)
-- Returns: {'ok', head, now, forgotten}, {'too_soon', head, now}, {'sale_not_found', head, now} or {'rebuilding'}
-- Invariant: only holds without an order go, and no stock moves; while a sale lives its ids cannot come back as
--   new holds.
--- include partition
--- include sale
--- include prefetch
--- include known_sale

local retention = tonumber(ARGV[3])
local closed_at = sale.closes_at
if sale.closed then
  closed_at = math.min(closed_at, tonumber(redis.call('HGET', sale.sale_key, 'updated_at')))
end
if now < closed_at + retention then return {'too_soon', head(), text(now)} end

local ids, statuses, ended = {unpack(ARGV, 4)}, {}, {}
prefetch(sale.holds_key, statuses, ids, function(packed) return packed and string.match(packed, '^%S+') end)
for _, id in ipairs(ids) do
  if statuses[id] == 'released' or statuses[id] == 'expired' then ended[#ended + 1] = id end
end
if #ended > 0 then redis.call('HDEL', sale.holds_key, unpack(ended)) end
return {'ok', head(), text(now), text(#ended)}
