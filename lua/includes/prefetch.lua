-- Fills `cache` with what `parse` makes of the hash's fields: one HMGET instead of a HGET for each.
local function prefetch(key, cache, fields, parse)
  for first = 1, #fields, 4000 do
    local last = math.min(first + 3999, #fields)
    local values = redis.call('HMGET', key, unpack(fields, first, last))
    for i, value in ipairs(values) do
      cache[fields[first + i - 1]] = parse(value)
    end
  end
end

-- The keys of a table that is a set.
local function members(set)
  local list = {}
  for member in pairs(set) do list[#list + 1] = member end
  return list
end
