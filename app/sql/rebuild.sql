-- name: rebuild_lock_position
-- The partition's place in the journal, kept from moving until the rebuild has ended.
SELECT epoch, sequence FROM positions WHERE partition = $1 FOR UPDATE;

-- name: rebuild_try_lock
-- One rebuilder of a partition at a time; ends with the transaction.
SELECT pg_try_advisory_xact_lock(hashtext($1), $2);

-- name: rebuild_clock
-- The latest moment that the partition's sales know of, in milliseconds: time never runs backwards.
SELECT coalesce(max(extract(epoch FROM greatest(r.created_at, r.ended_at)) * 1000), 0)::bigint
FROM sales s JOIN reservations r ON r.sale_id = s.id
WHERE s.partition = $1;

-- name: rebuild_sales
-- The partition's sales.
SELECT id, name, opens_at, closes_at, hold_seconds, max_hold_seconds, paused, closed, created_at, updated_at
FROM sales WHERE partition = $1 ORDER BY id;

-- name: rebuild_stock
-- A row per SKU of a sale: allocation by the movements, held and sold by the holds and orders.
SELECT k.sku, k.position, k.first_quantity, coalesce(k.limit_per_customer, 0) AS limit_per_customer,
  coalesce((SELECT sum(m.quantity) FROM movements m WHERE m.sale_id = k.sale_id AND m.sku = k.sku), 0)::bigint
    AS allocated,
  coalesce(h.quantity, 0)::bigint AS held,
  coalesce(o.quantity, 0)::bigint AS sold
FROM sale_skus k
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
-- Every reservation of a sale with its order, in no order.
SELECT r.id, r.customer_id, r.status, r.items, r.digest, r.created_at, r.expires_at,
  o.status AS order_status, o.payment_reference, o.metadata, o.reacquired, o.confirmed_at
FROM reservations r LEFT JOIN orders o ON o.reservation_id = r.id
WHERE r.sale_id = $1;

-- name: rebuild_movements
-- What was answered to restocks and withdrawals, by key.
SELECT key, digest, allocated, available, held, sold
FROM movements WHERE sale_id = $1 AND key IS NOT NULL;

-- name: rebuild_refunds
-- The payments of a sale that were told to be refunded.
SELECT f.reservation_id, f.payment_reference, f.at
FROM refunds f JOIN reservations r ON r.id = f.reservation_id
WHERE r.sale_id = $1;
