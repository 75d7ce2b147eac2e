-- For wrk: reservations, each by another customer and with a key of its own, as fast as they are answered.
-- Arguments after `--`: sale, token, prefix of customers and keys, `keyed` or `keyless`.

local head, prefix, keyed, number = '', '', true, 0

function init(args)
  head = 'POST /v1/sales/' .. args[1] .. '/reservations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer '
    .. args[2] .. '\r\nContent-Type: application/json\r\n'
  prefix, keyed = args[3], args[4] == 'keyed'
end

function request()
  number = number + 1
  local id = string.format('%s-%09d', prefix, number)
  local body = '{"customer_id":"' .. id .. '","items":[{"sku":"a","quantity":1}]}'
  local key = keyed and 'Idempotency-Key: ' .. id .. '\r\n' or ''
  return head .. key .. 'Content-Length: ' .. #body .. '\r\n\r\n' .. body
end

-- One line of JSON: microseconds, and how many answers were not 2xx or 3xx.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"answers": %d, "refused": %d, "failed": %d, "microseconds": %d, "p50": %d, "p99": %d}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration, latency:percentile(50), latency:percentile(99)))
end
