-- Binds `sale` to the one sale that a script is about, or answers {'sale_not_found', head, now}.
local sale = load_sale(4)
if sale.missing == 'damaged' then return close_partition() end
if sale.missing then return {'sale_not_found', head(), text(now)} end
