#!lua flags=allow-oom
-- Purpose: the auditor's mark: puts the sale's counters into the journal, so that the drain can compare them with
--   Postgres at exactly this point while the sale runs on.
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
local rows = {}
local fields = redis.call('HGETALL', sale.stock_key)
for i = 1, #fields, 2 do
  if fields[i] ~= '' then
    rows[#rows + 1] = fields[i] .. '=' .. string.gsub(stock_words(parse_row(fields[i + 1])), ' ', '/')
  end
end
append({'audited ' .. sale_id .. ' ' .. audit_id .. ' ' .. table.concat(counters, ' ') .. ' ' ..
  (#rows > 0 and table.concat(rows, ',') or '-')})
return {'ok', head(), text(now)}
