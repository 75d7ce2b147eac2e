#!lua flags=allow-oom
-- Purpose: the auditor's mark: puts the sale's counters and rules into the journal, so that the drain can compare
--   them with Postgres at exactly this point while the sale runs on.
-- KEYS: meta, journal, due, sale, stock, holds, customers, answers
-- ARGV: seen, sale_id, audit_id
-- Returns: {'ok', head, now}, {'sale_not_found', head, now} or {'rebuilding'}
-- Invariant: changes no stock.
--- include partition
--- include sale
--- include known_sale

local sale_id, audit_id = ARGV[2], ARGV[3]

local counters = redis.call('HMGET', sale.sale_key, 'reserved', 'confirmed', 'released', 'expired', 'cancelled')
for i = 1, 5 do counters[i] = counters[i] or '0' end
local rules = redis.call('HMGET', sale.sale_key, 'opens_at', 'closes_at', 'hold_seconds', 'max_hold_seconds', 'paused',
  'closed', 'created_at', 'updated_at', 'name')
for i = 1, 9 do rules[i] = rules[i] or '-' end
local sale_name = table.remove(rules)
-- In one go, however many SKUs there are: the counts and all of them have to be of one moment. So rows stay packed,
-- as taking them apart and putting them together again would take several times as long.
local rows = {}
local fields = redis.call('HGETALL', sale.stock_key)
for i = 1, #fields, 2 do
  if fields[i] ~= '' then
    if not string.find(fields[i + 1], ROW) then error('the row of ' .. fields[i] .. ' is damaged') end
    rows[#rows + 1] = fields[i] .. '=' .. string.gsub(fields[i + 1], ' ', '/')
  end
end
append({'audited ' .. sale_id .. ' ' .. audit_id .. ' ' .. table.concat(counters, ' ') .. ' ' ..
  table.concat(rules, ' ') .. ' ' .. (#rows > 0 and table.concat(rows, ',') or '-') .. ' ' .. sale_name})
return {'ok', head(), text(now)}
