-- An operator's change of a SKU's stock, remembered by its Idempotency-Key: restock and withdraw differ only in
-- what they refuse and in the direction. Needs `partition` and `sale`.

-- Answers what was answered before under this key, if anything was.
local function replay_movement(sale, key, digest)
  local remembered = redis.call('HGET', sale.answers_key, 'key ' .. key)
  if not remembered then return nil end
  local earlier_digest, stock = string.match(remembered, '^(%S+) (.*)$')
  if earlier_digest ~= digest then return {'idempotency_key_reused', head(), text(now)} end
  return {'replayed', head(), text(now), stock}
end

-- `kind`: restocked or withdrawn; `signed`: the change of allocated and available.
local function move_stock(sale, sale_id, by, kind, sku, signed, key, digest, reason)
  move(sale, sku, {allocated = signed, available = signed})
  local stock = stock_words(row_of(sale, sku))
  append({kind .. ' ' .. sale_id .. ' ' .. sku .. ' ' .. text(math.abs(signed)) .. ' ' .. stock .. ' ' .. key .. ' ' ..
    digest .. ' ' .. reason}, by)
  redis.call('HSET', sale.answers_key, 'key ' .. key, digest .. ' ' .. stock)
  save(sale, sale_id)
  return {kind, head(), text(now), stock}
end
