-- name: orders_reservation
-- The reservation $2 of the sale $1 with its order; past its time at $3 it is expired.
SELECT r.id, r.sale_id, r.customer_id, r.items, r.created_at, r.expires_at,
       CASE WHEN r.status = 'held' AND r.expires_at <= coalesce(to_timestamp($3::float8 / 1000), now())
            THEN 'expired' ELSE r.status END AS status,
       o.status AS order_status, o.payment_reference, o.metadata, o.reacquired, o.confirmed_at
FROM reservations r LEFT JOIN orders o ON o.reservation_id = r.id
WHERE r.sale_id = $1 AND r.id = $2;

-- name: orders_is_persisted
-- Is the order $1, as of its newest change, here? $2: the status that it should have.
SELECT EXISTS (SELECT FROM orders WHERE id = $1 AND ($2::text IS NULL OR status = $2));

-- name: orders_list_reservations
-- The sale's reservations, newest first. $2 now, $3 customer, $4 status, $5 SKU, $6 from, $7 to, $8 $9 the last
-- row of the page before, $10 rows
WITH r AS (
    SELECT id, sale_id, customer_id, items, created_at, expires_at,
           CASE WHEN status = 'held' AND expires_at <= coalesce(to_timestamp($2::float8 / 1000), now())
                THEN 'expired' ELSE status END AS status
    FROM reservations WHERE sale_id = $1
)
SELECT r.*, o.status AS order_status, o.payment_reference, o.metadata, o.reacquired, o.confirmed_at
FROM r LEFT JOIN orders o ON o.reservation_id = r.id
WHERE ($3::text IS NULL OR r.customer_id = $3)
  AND ($4::text IS NULL OR r.status = $4)
  AND ($5::text IS NULL OR r.items @> jsonb_build_array(jsonb_build_object('sku', $5)))
  AND ($6::float8 IS NULL OR r.created_at >= to_timestamp($6 / 1000))
  AND ($7::float8 IS NULL OR r.created_at < to_timestamp($7 / 1000))
  AND ($8::float8 IS NULL OR (r.created_at, r.id) < (to_timestamp($8 / 1000), $9::text))
ORDER BY r.created_at DESC, r.id DESC LIMIT $10;

-- name: orders_list_orders
-- The sale's orders with their reservations, newest first; parameters as of the reservations, $4 the order's
-- status.
SELECT r.id, r.sale_id, r.customer_id, r.items, r.created_at, r.expires_at, r.status,
       o.status AS order_status, o.payment_reference, o.metadata, o.reacquired, o.confirmed_at
FROM orders o JOIN reservations r ON r.id = o.reservation_id
WHERE o.sale_id = $1 AND $2::float8 IS NOT DISTINCT FROM $2
  AND ($3::text IS NULL OR o.customer_id = $3)
  AND ($4::text IS NULL OR o.status = $4)
  AND ($5::text IS NULL OR o.items @> jsonb_build_array(jsonb_build_object('sku', $5)))
  AND ($6::float8 IS NULL OR o.confirmed_at >= to_timestamp($6 / 1000))
  AND ($7::float8 IS NULL OR o.confirmed_at < to_timestamp($7 / 1000))
  AND ($8::float8 IS NULL OR (o.confirmed_at, o.id) < (to_timestamp($8 / 1000), $9::text))
ORDER BY o.confirmed_at DESC, o.id DESC LIMIT $10;

-- name: orders_list_movements
-- The sale's movements, newest first. $2 SKU, $3 kind, $4 from, $5 to, $6 the last row of the page before, $7 rows
SELECT id, sale_id, sku, kind, quantity, allocated, available, held, sold, reason, at
FROM movements
WHERE sale_id = $1 AND ($2::text IS NULL OR sku = $2) AND ($3::text IS NULL OR kind = $3)
  AND ($4::float8 IS NULL OR at >= to_timestamp($4 / 1000))
  AND ($5::float8 IS NULL OR at < to_timestamp($5 / 1000))
  AND ($6::bigint IS NULL OR id < $6)
ORDER BY id DESC LIMIT $7;

-- name: orders_list_sales
-- Sales, newest first. $1 now, $2 state, $3 $4 created at or after and before, $5 $6 the last row of the page
-- before, $7 rows
WITH s AS (
    SELECT *, coalesce(to_timestamp($1::float8 / 1000), now()) AS now FROM sales
), stated AS (
    SELECT *, CASE WHEN closed OR now >= closes_at THEN 'closed' WHEN now < opens_at THEN 'scheduled'
                   WHEN paused THEN 'paused' ELSE 'open' END AS state
    FROM s
)
SELECT * FROM stated
WHERE ($2::text IS NULL OR state = $2)
  AND ($3::float8 IS NULL OR created_at >= to_timestamp($3 / 1000))
  AND ($4::float8 IS NULL OR created_at < to_timestamp($4 / 1000))
  AND ($5::float8 IS NULL OR (created_at, id) < (to_timestamp($5 / 1000), $6::text))
ORDER BY created_at DESC, id DESC LIMIT $7;

-- name: orders_sale
-- The sale $1. $2 now
SELECT *, CASE WHEN closed OR now >= closes_at THEN 'closed' WHEN now < opens_at THEN 'scheduled'
               WHEN paused THEN 'paused' ELSE 'open' END AS state
FROM (SELECT *, coalesce(to_timestamp($2::float8 / 1000), now()) AS now FROM sales WHERE id = $1) s;

-- name: orders_stock
-- Stock rows of the sales $1: allocated by movements, held and sold by reservations and orders.
SELECT k.sale_id, k.sku, k.limit_per_customer, coalesce(m.units, 0)::bigint AS allocated,
       coalesce(h.units, 0)::bigint AS held, coalesce(o.units, 0)::bigint AS sold
FROM sale_skus k
LEFT JOIN (
    SELECT sale_id, sku, sum(quantity) AS units FROM movements WHERE sale_id = ANY ($1::text[]) GROUP BY 1, 2
) m ON (m.sale_id, m.sku) = (k.sale_id, k.sku)
LEFT JOIN (
    SELECT r.sale_id, i.sku, sum(i.quantity) AS units
    FROM reservations r CROSS JOIN jsonb_to_recordset(r.items) AS i (sku text, quantity bigint)
    WHERE r.sale_id = ANY ($1::text[]) AND r.status = 'held' GROUP BY 1, 2
) h ON (h.sale_id, h.sku) = (k.sale_id, k.sku)
LEFT JOIN (
    SELECT r.sale_id, i.sku, sum(i.quantity) AS units
    FROM orders r CROSS JOIN jsonb_to_recordset(r.items) AS i (sku text, quantity bigint)
    WHERE r.sale_id = ANY ($1::text[]) AND r.status = 'confirmed' GROUP BY 1, 2
) o ON (o.sale_id, o.sku) = (k.sale_id, k.sku)
WHERE k.sale_id = ANY ($1::text[]) ORDER BY k.sale_id, k.position;
