-- name: rebuild_try_lock
-- One worker opens a partition at a time. The lock ends with the session, and the session of a worker that says
-- nothing for $3 milliseconds ends, too: it may be paused.
SELECT pg_try_advisory_lock(hashtext($1), $2), set_config('idle_session_timeout', $3, false),
  set_config('idle_in_transaction_session_timeout', $3, false);

-- name: rebuild_lock_position
-- The partition's place in the journal, kept from moving until the rebuild has ended.
SELECT epoch, sequence, previous_epoch, previous_sequence FROM positions WHERE partition = $1 FOR UPDATE;

-- name: rebuild_next_epoch
-- Gives out the epoch $2, which continues the entry $3-$4: what any other server still writes after that does not
-- follow, and whoever sells there is told to stop.
WITH moved AS (
  UPDATE positions SET epoch = $2, sequence = 1, previous_epoch = $3, previous_sequence = $4, updated_at = now()
  WHERE partition = $1 RETURNING partition, epoch, sequence
)
SELECT pg_notify('holdfast_drained', partition || ' ' || epoch || '-' || sequence) FROM moved;

-- name: rebuild_read_position
-- The partition's place in the journal.
SELECT epoch, sequence, previous_epoch, previous_sequence FROM positions WHERE partition = $1;

-- name: rebuild_add_position
-- A partition that was never drained starts before the first entry.
INSERT INTO positions (partition) VALUES ($1) ON CONFLICT DO NOTHING;

-- name: rebuild_has_rejects
-- Is there a record that Postgres refused and nobody has settled?
SELECT EXISTS (SELECT FROM rejects WHERE partition = $1 AND resolved_at IS NULL);

-- name: rebuild_clock
-- The latest moment that the partition's sales know of: time never runs backwards.
SELECT max(at) FROM (
  SELECT greatest(r.created_at, r.ended_at, o.confirmed_at, o.cancelled_at) AS at
  FROM sales s JOIN reservations r ON r.sale_id = s.id LEFT JOIN orders o ON o.reservation_id = r.id
  WHERE s.partition = $1
  UNION ALL SELECT at FROM movements WHERE partition = $1
  UNION ALL SELECT updated_at FROM sales WHERE partition = $1
  UNION ALL SELECT f.at FROM refunds f JOIN reservations r ON r.id = f.reservation_id
    JOIN sales s ON s.id = r.sale_id WHERE s.partition = $1
) moments;

-- name: rebuild_sales
-- The partition's sales, with what the scripts have counted of each.
SELECT s.id, s.name, s.opens_at, s.closes_at, s.hold_seconds, s.max_hold_seconds, s.paused, s.closed,
  s.created_at, s.updated_at, r.reserved, r.released, r.expired, o.confirmed, o.cancelled
FROM sales s
CROSS JOIN LATERAL (
  SELECT count(*) AS reserved,
    count(*) FILTER (WHERE status = 'released') AS released,
    count(*) FILTER (WHERE status <> 'released' AND ended_at IS NOT NULL) AS expired
  FROM reservations WHERE sale_id = s.id
) r
CROSS JOIN LATERAL (
  SELECT count(*) AS confirmed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled
  FROM orders WHERE sale_id = s.id
) o
WHERE s.partition = $1
ORDER BY s.id;

-- name: rebuild_stock
-- A row per SKU of a sale: allocation by the movements, held and sold by the holds and orders.
SELECT k.sku, k.position, k.first_quantity, coalesce(k.limit_per_customer, 0) AS limit_per_customer,
  coalesce(m.quantity, 0)::bigint AS allocated,
  coalesce(h.quantity, 0)::bigint AS held,
  coalesce(o.quantity, 0)::bigint AS sold
FROM sale_skus k
LEFT JOIN (
  SELECT sku, sum(quantity) AS quantity FROM movements WHERE sale_id = $1 GROUP BY sku
) m ON m.sku = k.sku
LEFT JOIN (
  SELECT i.sku, sum(i.quantity) AS quantity
  FROM reservations r, jsonb_to_recordset(r.items) AS i(sku text, quantity bigint)
  WHERE r.sale_id = $1 AND r.status = 'held' GROUP BY i.sku
) h ON h.sku = k.sku
LEFT JOIN (
  SELECT i.sku, sum(i.quantity) AS quantity
  FROM orders o, jsonb_to_recordset(o.items) AS i(sku text, quantity bigint)
  WHERE o.sale_id = $1 AND o.status = 'confirmed' GROUP BY i.sku
) o ON o.sku = k.sku
WHERE k.sale_id = $1
ORDER BY k.position;

-- name: rebuild_holds
-- Every reservation of a sale with its order; a customer's come together.
SELECT r.id, r.customer_id, r.status, r.items, r.digest, r.created_at, r.expires_at,
  o.status AS order_status, o.payment_reference, o.metadata, o.reacquired, o.confirmed_at
FROM reservations r LEFT JOIN orders o ON o.reservation_id = r.id
WHERE r.sale_id = $1
ORDER BY r.customer_id;

-- name: rebuild_movements
-- What was answered to restocks and withdrawals, by key.
SELECT key, digest, allocated, available, held, sold
FROM movements WHERE sale_id = $1 AND key IS NOT NULL;

-- name: rebuild_refunds
-- The payments of a sale whose buyers were told to expect a refund.
SELECT f.reservation_id, f.payment_reference, f.at
FROM refunds f JOIN reservations r ON r.id = f.reservation_id
WHERE r.sale_id = $1;

-- name: rebuild_hold
-- One reservation of a sale that ended without an order.
SELECT id, customer_id, status, items, digest, created_at, expires_at, NULL AS order_status
FROM reservations WHERE sale_id = $1 AND id = $2 AND status IN ('released', 'expired');

-- name: rebuild_kept_holds
-- The reservations $2 of the sale $1 with their orders.
SELECT r.id, r.customer_id, r.status, r.items, r.digest, r.created_at, r.expires_at,
  o.status AS order_status, o.payment_reference, o.metadata, o.reacquired, o.confirmed_at
FROM reservations r LEFT JOIN orders o ON o.reservation_id = r.id
WHERE r.sale_id = $1 AND r.id = ANY ($2::text[]);

-- name: rebuild_ended
-- Those of the reservations that ended without an order.
SELECT id FROM reservations WHERE id = ANY($1) AND status IN ('released', 'expired');
