#!lua
-- What the reserve script reads and writes for a batch of new holds of one sale, and nothing else: nothing is
-- decided, checked or put together. KEYS: meta, journal, due, sale, stock, holds, customers
-- ARGV: entry, time, stock row, records, then of each request hold_id, hold, customer_id, customer, due, member
local ids, customers, holds, taken, due, n = {}, {}, {}, {}, {}, 0
for at = 5, #ARGV, 6 do
  n = n + 1
  ids[n], customers[n] = ARGV[at], ARGV[at + 2]
  holds[2 * n - 1], holds[2 * n] = ARGV[at], ARGV[at + 1]
  taken[2 * n - 1], taken[2 * n] = ARGV[at + 2], ARGV[at + 3]
  due[2 * n - 1], due[2 * n] = ARGV[at + 4], ARGV[at + 5]
end
redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'time', 'server', 'state')
redis.call('HMGET', KEYS[6], unpack(ids))
redis.call('HMGET', KEYS[7], unpack(customers))
redis.call('HGET', KEYS[5], 'a')
redis.call('XADD', KEYS[2], ARGV[1], 'at', ARGV[2], 'records', ARGV[4])
redis.call('HSET', KEYS[1], 'sequence', ARGV[2], 'time', ARGV[2])
redis.call('HSET', KEYS[5], 'a', ARGV[3])
redis.call('HSET', KEYS[6], unpack(holds))
redis.call('HSET', KEYS[7], unpack(taken))
redis.call('HINCRBY', KEYS[4], 'reserved', n)
redis.call('ZADD', KEYS[3], unpack(due))
return 1
