#!lua flags=allow-oom
-- Purpose: gives a hold's units back because the customer asked.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, hold_id
-- Returns: {word, head, now, hold}; words in this precedence:
--   sale_not_found | reservation_not_found | reservation_confirmed | ended_already (released or expired) | released
--   or {'rebuilding'}
-- Invariant: a hold's units go back once.
--- include partition
--- include sale
--- include known_sale
--- include known_hold

local sale_id = ARGV[2]

if hold.status == 'confirmed' then return answer('reservation_confirmed') end
if hold.status ~= 'held' or now >= hold.expires then return answer('ended_already') end

end_hold(sale, id, hold, 'released')
append({'released ' .. sale_id .. ' ' .. id .. ' ' .. hold.customer .. ' ' .. hold.items})
save(sale, sale_id)
return answer('released')
