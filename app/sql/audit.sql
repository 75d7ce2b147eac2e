-- name: audit_stock
-- Per SKU of the sale $1: movements summed, units in living or unswept holds, units in orders.
SELECT k.sku, coalesce(m.units, 0)::bigint AS allocated, coalesce(h.units, 0)::bigint AS held,
       coalesce(o.units, 0)::bigint AS sold
FROM (SELECT sku, sum(quantity) AS units FROM movements WHERE sale_id = $1 GROUP BY sku) m
FULL JOIN (
    SELECT i.sku, sum(i.quantity) AS units
    FROM reservations r CROSS JOIN jsonb_to_recordset(r.items) AS i (sku text, quantity bigint)
    WHERE r.sale_id = $1 AND r.status = 'held' GROUP BY i.sku
) h ON h.sku = m.sku
FULL JOIN (
    SELECT i.sku, sum(i.quantity) AS units
    FROM orders r CROSS JOIN jsonb_to_recordset(r.items) AS i (sku text, quantity bigint)
    WHERE r.sale_id = $1 AND r.status = 'confirmed' GROUP BY i.sku
) o ON o.sku = coalesce(m.sku, h.sku)
CROSS JOIN LATERAL (SELECT coalesce(m.sku, h.sku, o.sku) AS sku) k;

-- name: audit_counts
-- What happened in the sale $1, by the rows: an expiry counts also where a late payment confirmed it.
SELECT count(*) AS reserved,
       count(*) FILTER (WHERE status = 'confirmed') AS confirmed,
       count(*) FILTER (WHERE status = 'released') AS released,
       count(*) FILTER (WHERE status <> 'released' AND ended_at IS NOT NULL) AS expired,
       (SELECT count(*) FROM orders WHERE sale_id = $1 AND status = 'cancelled') AS cancelled
FROM reservations WHERE sale_id = $1;

-- name: audit_orders
-- Orders of the sale $1 whose outbox row or confirmed reservation is not there, or another one than it should be,
-- and the other way round.
SELECT count(*) FILTER (WHERE o.id IS NOT NULL AND b.id IS NULL) AS without_outbox_row,
       count(*) FILTER (WHERE r.id IS NULL) AS without_reservation,
       count(*) FILTER (WHERE (o.customer_id, o.items) <> (r.customer_id, r.items)) AS unlike_their_reservation,
       count(*) FILTER (WHERE o.id IS NULL) AS reservations_without_order
FROM (SELECT * FROM orders WHERE sale_id = $1) o
FULL JOIN (SELECT id, customer_id, items FROM reservations WHERE sale_id = $1 AND status = 'confirmed') r
    ON r.id = o.reservation_id
LEFT JOIN outbox b ON b.id = o.event_id AND b.aggregateid = o.id AND b.type = 'order.confirmed';

-- name: audit_movements
-- What is wrong with the movements of the sale $1 by themselves: those whose allocation after is not the sum so far,
-- SKUs with another first quantity, and with other write-offs than their cancelled orders.
SELECT (SELECT count(*) FROM (
           SELECT allocated, sum(quantity) OVER (PARTITION BY sku ORDER BY epoch, sequence, ordinal) AS so_far
           FROM movements WHERE sale_id = $1
       ) m WHERE allocated <> so_far) AS unlike_the_sum_so_far,
       count(*) FILTER (WHERE k.first_quantity IS DISTINCT FROM m.first) AS with_another_first_quantity,
       count(*) FILTER (WHERE coalesce(m.written_off, 0) <> -coalesce(o.units, 0)) AS with_other_write_offs
FROM (SELECT sku, first_quantity FROM sale_skus WHERE sale_id = $1) k
LEFT JOIN (
    SELECT sku, sum(quantity) FILTER (WHERE kind = 'allocated') AS first,
           sum(quantity) FILTER (WHERE kind = 'written_off') AS written_off
    FROM movements WHERE sale_id = $1 GROUP BY sku
) m ON m.sku = k.sku
LEFT JOIN (
    SELECT i.sku, sum(i.quantity) AS units
    FROM orders r CROSS JOIN jsonb_to_recordset(r.items) AS i (sku text, quantity bigint)
    WHERE r.sale_id = $1 AND NOT r.restocked GROUP BY i.sku
) o ON o.sku = k.sku;

-- name: audit_rules
-- The rules of the sale $1, as the scripts write them; the name as it is.
SELECT name, hold_seconds::text, max_hold_seconds::text, (paused::int)::text AS paused, (closed::int)::text AS closed,
       ((extract(epoch FROM opens_at) * 1000)::bigint)::text AS opens_at,
       ((extract(epoch FROM closes_at) * 1000)::bigint)::text AS closes_at,
       ((extract(epoch FROM created_at) * 1000)::bigint)::text AS created_at,
       ((extract(epoch FROM updated_at) * 1000)::bigint)::text AS updated_at
FROM sales WHERE id = $1;

-- name: audit_sku_rules
-- What the sale $1 says of its SKUs; limit 0: none.
SELECT sku, coalesce(limit_per_customer, 0) AS limit, first_quantity, position FROM sale_skus WHERE sale_id = $1;

-- name: audit_rejects
-- Records of the sale $1, or unreadable ones of its partition $2, that wait for a person.
SELECT count(*) FROM rejects
WHERE resolved_at IS NULL AND partition = $2 AND (sale_id = $1 OR sale_id IS NULL);

-- name: audit_store
-- The result of one audit.
INSERT INTO audits (id, sale_id, result, at) VALUES ($1, $2, $3::text::jsonb, to_timestamp($4::float8 / 1000))
ON CONFLICT (id) DO NOTHING;

-- name: audit_read
-- The result of the audit $1, once the drain has reached its mark.
SELECT result FROM audits WHERE id = $1;

-- name: audit_sales
-- Every sale.
SELECT id FROM sales ORDER BY created_at, id;

-- name: audit_lock_position
-- The outbox counter of the partition $1, which no one else moves until the end of the transaction.
SELECT outbox_position FROM positions WHERE partition = $1 FOR UPDATE;

-- name: audit_orders_without_event
-- Orders of the sale $1 whose outbox row is not there.
SELECT o.* FROM orders o LEFT JOIN outbox b ON b.id = o.event_id
WHERE o.sale_id = $1 AND b.id IS NULL ORDER BY o.confirmed_at, o.id;

-- name: audit_move_outbox_position
-- The outbox counter after a repair.
UPDATE positions SET outbox_position = $2 WHERE partition = $1;

-- name: audit_kept_holds
-- Reservations of the sale $1 that Redis must have: it may forget those that ended without an order.
SELECT substr(id, 5) AS field FROM reservations WHERE sale_id = $1 AND status IN ('held', 'confirmed');

-- name: audit_holds
-- The reservations $2 of the sale $1 with their orders, in the words of the scripts.
SELECT substr(r.id, 5) AS field, concat_ws(' ',
    r.status, (extract(epoch FROM r.created_at) * 1000)::bigint, (extract(epoch FROM r.expires_at) * 1000)::bigint,
    r.digest, r.customer_id, i.items, o.status, (extract(epoch FROM o.confirmed_at) * 1000)::bigint,
    o.reacquired::int, o.payment_reference, encode(sha256(convert_to(o.metadata::text, 'UTF8')), 'hex')) AS value
FROM unnest($2::text[]) AS u (hold_id)
JOIN reservations r ON r.id = 'res_' || u.hold_id AND r.sale_id = $1
LEFT JOIN orders o ON o.reservation_id = r.id
CROSS JOIN LATERAL (
    SELECT string_agg((e.item ->> 'sku') || '=' || (e.item ->> 'quantity'), ',' ORDER BY e.place) AS items
    FROM jsonb_array_elements(r.items) WITH ORDINALITY AS e (item, place)
) i;

-- name: audit_customers
-- Everybody who has ever made a reservation of the sale $1.
SELECT DISTINCT customer_id AS field FROM reservations WHERE sale_id = $1;

-- name: audit_reservations_made
-- How many reservations of the sale $1 the customers $2 have ever made.
SELECT customer_id AS field, count(*)::text AS value FROM reservations
WHERE sale_id = $1 AND customer_id = ANY ($2::text[]) GROUP BY customer_id;

-- name: audit_kept_answers
-- What must have been answered in the sale $1: to restocks and withdrawals by key, and to late payments.
SELECT 'key ' || key AS field FROM movements WHERE sale_id = $1 AND key IS NOT NULL
UNION ALL
SELECT 'refund ' || substr(f.reservation_id, 5) || ' ' || f.payment_reference
FROM reservations r JOIN refunds f ON f.reservation_id = r.id WHERE r.sale_id = $1;

-- name: audit_answers
-- Answers of the sale $1 in the words of the scripts: those to the keys $2, and to the payments $4 of the holds $3.
SELECT 'key ' || key AS field, concat_ws(' ', digest, allocated, available, held, sold) AS value
FROM movements WHERE sale_id = $1 AND key = ANY ($2::text[])
UNION ALL
SELECT 'refund ' || u.hold_id || ' ' || u.payment_reference, ((extract(epoch FROM f.at) * 1000)::bigint)::text
FROM unnest($3::text[], $4::text[]) AS u (hold_id, payment_reference)
JOIN refunds f ON f.reservation_id = 'res_' || u.hold_id AND f.payment_reference = u.payment_reference
JOIN reservations r ON r.id = f.reservation_id AND r.sale_id = $1;
