#!lua flags=allow-oom
-- Purpose: keeps a living hold for longer; a retry is harmless.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, hold_id, seconds
-- Returns: {word, head, now, hold}; words in this precedence:
--   sale_not_found | reservation_not_found | reservation_confirmed | reservation_released |
--   reservation_expired | extension_limit_reached | extended
--   or {'rebuilding'}
-- Invariant: expires_at never moves back, and never past max_hold_seconds from creation.
--- include partition
--- include sale
--- include known_sale
--- include known_hold

local sale_id, seconds = ARGV[2], tonumber(ARGV[4])

if hold.status == 'confirmed' then return answer('reservation_confirmed') end
if hold.status == 'released' then return answer('reservation_released') end
if hold.status == 'expired' or now >= hold.expires then return answer('reservation_expired') end

local expires = now + seconds * 1000
if expires > hold.created + sale.max_hold_ms then return answer('extension_limit_reached') end
if expires > hold.expires then
  hold.expires = expires
  put_hold(sale, id, hold)
  sale.due[id] = expires
  append({'extended ' .. sale_id .. ' ' .. id .. ' ' .. hold.customer .. ' ' .. text(expires)})
  save(sale, sale_id)
end
return answer('extended')
