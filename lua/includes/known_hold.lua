-- Binds `id` and `hold` to the one hold that a script is about (ARGV[3]), or answers
-- {'reservation_not_found', head, now}. `answer(word)` replies with the hold as it then is.
local id = ARGV[3]
local hold = hold_of(sale, id)
if not hold then return {'reservation_not_found', head(), text(now)} end

local function answer(word)
  return {word, head(), text(now), pack_hold(hold)}
end
