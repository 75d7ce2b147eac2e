-- Fills `cache` with what `parse`, where there is one, makes of the hash's fields: one HMGET instead of a HGET for
-- each. A field that is not there is `false`.
local function prefetch(key, cache, fields, parse)
  for first = 1, #fields, 4000 do
    local last = math.min(first + 3999, #fields)
    local values = redis.call('HMGET', key, unpack(fields, first, last))
    for i, value in ipairs(values) do
      if parse then value = parse(value) end
      cache[fields[first + i - 1]] = value
    end
  end
end

-- The keys of a table that is a set.
local function members(set)
  local list = {}
  for member in pairs(set) do list[#list + 1] = member end
  return list
end
