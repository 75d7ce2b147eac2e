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
LEFT JOIN outbox b ON b.id = o.event_id AND b.aggregateid = o.id;

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
    o.reacquired::int, o.payment_reference) AS value
FROM unnest($2::text[]) AS u (hold_id)
JOIN reservations r ON r.id = 'res_' || u.hold_id AND r.sale_id = $1
LEFT JOIN orders o ON o.reservation_id = r.id
CROSS JOIN LATERAL (
    SELECT string_agg((e.item ->> 'sku') || '=' || (e.item ->> 'quantity'), ',' ORDER BY e.place) AS items
    FROM jsonb_array_elements(r.items) WITH ORDINALITY AS e (item, place)
) i;

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
