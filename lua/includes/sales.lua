-- The sales of a batch. KEYS has the five of each from the fourth on; ARGV, from `at` on, of each in the same order
-- sale_id, requests, and `width` words of each of its requests. Needs `partition` and `sale`.

-- Every sale with its `id`, and the `first` and `last` place of its requests in ARGV; nil where one is damaged.
local function load_sales(at, width)
  local sales = {}
  for first = 4, #KEYS, 5 do
    local sale = load_sale(first)
    if sale.missing == 'damaged' then return nil end
    sale.id, sale.first = ARGV[at], at + 2
    sale.last = sale.first + tonumber(ARGV[at + 1]) * width - 1
    at = sale.last + 1
    sales[#sales + 1] = sale
  end
  return sales
end
