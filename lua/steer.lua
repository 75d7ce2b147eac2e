#!lua flags=allow-oom
-- Purpose: pauses, resumes or closes a sale.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, by (request id and actor), verb (paused, resumed or closed)
-- Returns: {word, head, now}; words in this precedence:
--   sale_not_found | sale_closed, with opens_at after `now` (only paused and resumed meet it) | ok
--   or {'rebuilding'}
-- Invariant: closing is final; a repeat changes nothing.
--- include partition
--- include sale
--- include known_sale

local sale_id, by, verb = ARGV[2], ARGV[3], ARGV[4]

local field, value = 'paused', '1'
if verb == 'closed' then
  field = 'closed'
  if sale.closed then return {'ok', head(), text(now)} end
else
  if state_of(sale) == 'closed' then return {'sale_closed', head(), text(now), text(sale.opens_at)} end
  if verb == 'resumed' then value = '0' end
  if sale.paused == (verb == 'paused') then return {'ok', head(), text(now)} end
end

append({verb .. ' ' .. sale_id}, by)
redis.call('HSET', sale.sale_key, field, value, 'updated_at', text(now))
return {'ok', head(), text(now)}
