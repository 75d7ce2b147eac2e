-- name: drain_prepare
-- Gives every partition its position row. $1: count of partitions
INSERT INTO positions (partition) SELECT generate_series(0, $1::int - 1) ON CONFLICT DO NOTHING;

-- name: drain_lock_position
-- The fence: whoever holds this row may drain the partition $1; no row means that another worker does. A worker that
-- says nothing for $2 milliseconds loses it with its session: it may be paused.
SELECT epoch, sequence, outbox_position, set_config('idle_in_transaction_session_timeout', $2, true)
FROM positions WHERE partition = $1 FOR UPDATE SKIP LOCKED;

-- name: drain_move_position
-- The last step of a batch: position and outbox counter move, and who waits is told. $5, $6: the entry that the
-- epoch $2 continues, where the batch has opened it.
WITH moved AS (
    UPDATE positions SET epoch = $2, sequence = $3, outbox_position = $4, updated_at = now(),
        previous_epoch = coalesce($5, previous_epoch), previous_sequence = coalesce($6, previous_sequence)
    WHERE partition = $1 RETURNING partition, epoch, sequence
)
SELECT pg_notify('holdfast_drained', partition || ' ' || epoch || '-' || sequence) FROM moved;

-- name: drain_configure_sale
-- Creates the sale $1 in partition $2 or replaces its rules; $8 is when.
INSERT INTO sales (id, partition, name, opens_at, closes_at, hold_seconds, max_hold_seconds, created_at, updated_at)
VALUES ($1, $2, $3, to_timestamp($4::float8 / 1000), to_timestamp($5::float8 / 1000), $6, $7,
        to_timestamp($8::float8 / 1000), to_timestamp($8::float8 / 1000))
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, opens_at = excluded.opens_at, closes_at = excluded.closes_at,
    hold_seconds = excluded.hold_seconds, max_hold_seconds = excluded.max_hold_seconds,
    updated_at = greatest(sales.updated_at, excluded.updated_at);

-- name: drain_configure_skus
-- Replaces the limits of the sale's known SKUs; adds new ones, each with the movement that allocated it.
WITH line AS (
    SELECT * FROM unnest($7::text[], $8::bigint[], $9::int[], $10::int[]) AS l (sku, quantity, most, position)
), known AS (
    UPDATE sale_skus SET limit_per_customer = nullif(line.most, 0)
    FROM line WHERE sale_skus.sale_id = $1 AND sale_skus.sku = line.sku
), added AS (
    INSERT INTO sale_skus (sale_id, sku, position, first_quantity, limit_per_customer)
    SELECT $1, sku, position, quantity, nullif(most, 0) FROM line
    ON CONFLICT (sale_id, sku) DO NOTHING RETURNING sku, first_quantity, position
)
INSERT INTO movements (sale_id, sku, kind, quantity, partition, epoch, sequence, ordinal, at)
SELECT $1, sku, 'allocated', first_quantity, $2, $3, $4, $5, to_timestamp($6::float8 / 1000)
FROM added ORDER BY position;

-- name: drain_steer_sale
-- Pauses ($2 paused), resumes or closes the sale $1.
UPDATE sales SET
    paused = CASE $2::text WHEN 'paused' THEN true WHEN 'resumed' THEN false ELSE paused END,
    closed = closed OR $2::text = 'closed',
    updated_at = greatest(updated_at, to_timestamp($3::float8 / 1000))
WHERE id = $1;

-- name: drain_insert_reservations
-- New holds of known sales; each column is one text with a line per hold.
INSERT INTO reservations (id, sale_id, customer_id, status, items, digest, created_at, expires_at)
SELECT u.id, u.sale_id, u.customer_id, 'held', u.items::jsonb, u.digest,
       to_timestamp(u.created_at::float8 / 1000), to_timestamp(u.expires_at::float8 / 1000)
FROM unnest(string_to_array($1, E'\n'), string_to_array($2, E'\n'), string_to_array($3, E'\n'),
            string_to_array($4, E'\n'), string_to_array($5, E'\n'), string_to_array($6, E'\n')::bigint[],
            string_to_array($7, E'\n')::bigint[])
    AS u (id, sale_id, customer_id, items, digest, created_at, expires_at)
JOIN sales ON sales.id = u.sale_id
ON CONFLICT (id) DO NOTHING;

-- name: drain_extend_reservations
-- A hold's end never moves back.
UPDATE reservations r SET expires_at = to_timestamp(u.expires_at::float8 / 1000)
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u (id, sale_id, expires_at)
WHERE r.id = u.id AND r.sale_id = u.sale_id AND r.expires_at < to_timestamp(u.expires_at::float8 / 1000);

-- name: drain_release_reservations
-- Living holds that a customer gave back.
UPDATE reservations r SET status = 'released', ended_at = to_timestamp(u.at::float8 / 1000)
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u (id, sale_id, at)
WHERE r.id = u.id AND r.sale_id = u.sale_id AND r.status = 'held';

-- name: drain_expire_reservations
-- Living holds that the sweeper ended.
UPDATE reservations r SET status = 'expired', ended_at = to_timestamp(u.at::float8 / 1000)
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u (id, sale_id, at)
WHERE r.id = u.id AND r.sale_id = u.sale_id AND r.status = 'held';

-- name: drain_confirm_reservations
-- Holds that were paid; a late payment may confirm an expired one.
UPDATE reservations r SET status = 'confirmed'
FROM unnest($1::text[], $2::text[]) AS u (id, sale_id)
WHERE r.id = u.id AND r.sale_id = u.sale_id AND r.status IN ('held', 'expired');

-- name: drain_insert_orders
-- The orders of confirmed reservations.
INSERT INTO orders (id, reservation_id, sale_id, customer_id, status, items, payment_reference, metadata,
                    reacquired, confirmed_at, event_id)
SELECT u.id, u.reservation_id, u.sale_id, u.customer_id, 'confirmed', u.items::jsonb, u.payment_reference,
       u.metadata::json, u.reacquired, to_timestamp(u.at::float8 / 1000), u.event_id
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bool[],
            $9::bigint[], $10::uuid[])
    AS u (id, reservation_id, sale_id, customer_id, items, payment_reference, metadata, reacquired, at, event_id)
ON CONFLICT (id) DO NOTHING;

-- name: drain_cancel_orders
-- Compensation: an order is taken back once.
UPDATE orders o SET status = 'cancelled', cancelled_at = to_timestamp(u.at::float8 / 1000),
                    restocked = u.restocked, cancel_reason = u.reason
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bool[], $5::text[])
    AS u (id, sale_id, at, restocked, reason)
WHERE o.id = u.id AND o.sale_id = u.sale_id AND o.status = 'confirmed';

-- name: drain_insert_refunds
-- Payments that came too late; the answer is final for their reference.
INSERT INTO refunds (reservation_id, payment_reference, at)
SELECT u.reservation_id, u.payment_reference, to_timestamp(u.at::float8 / 1000)
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u (reservation_id, payment_reference, at)
ON CONFLICT DO NOTHING;

-- name: drain_insert_movements
-- Restocks, withdrawals and write-offs, in journal order.
INSERT INTO movements (sale_id, sku, kind, quantity, allocated, available, held, sold, key, digest, reason,
                       partition, epoch, sequence, ordinal, at)
SELECT u.sale_id, u.sku, u.kind, u.quantity, u.allocated, u.available, u.held, u.sold, u.key, u.digest, u.reason,
       u.partition, u.epoch, u.sequence, u.ordinal, to_timestamp(u.at::float8 / 1000)
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
            $8::bigint[], $9::text[], $10::text[], $11::text[], $12::int[], $13::bigint[], $14::bigint[],
            $15::int[], $16::bigint[])
    WITH ORDINALITY AS u (sale_id, sku, kind, quantity, allocated, available, held, sold, key, digest, reason,
                          partition, epoch, sequence, ordinal, at, place)
ORDER BY u.place
ON CONFLICT (partition, epoch, sequence, ordinal, sku) DO NOTHING;

-- name: drain_insert_outbox
-- Events in journal order, each column as one text with a line per event; $6 is the partition, $7 the counter that
-- its outbox has reached.
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, partition, position)
SELECT u.id, u.aggregatetype, u.aggregateid, u.type, u.payload::json, $6, $7::bigint + u.place
FROM unnest(string_to_array($1, E'\n')::uuid[], string_to_array($2, E'\n'), string_to_array($3, E'\n'),
            string_to_array($4, E'\n'), string_to_array($5, E'\n'))
    WITH ORDINALITY AS u (id, aggregatetype, aggregateid, type, payload, place)
ON CONFLICT (id) DO NOTHING;

-- name: drain_unmatched_reservations
-- Ids that name no reservation of their sale in one of the statuses $3: what a batch could not apply.
SELECT u.id FROM unnest($1::text[], $2::text[]) AS u (id, sale_id)
LEFT JOIN reservations r ON r.id = u.id AND r.sale_id = u.sale_id AND r.status = ANY ($3::text[])
WHERE r.id IS NULL;

-- name: drain_unmatched_orders
-- Ids that name no order of their sale in one of the statuses $3.
SELECT u.id FROM unnest($1::text[], $2::text[]) AS u (id, sale_id)
LEFT JOIN orders o ON o.id = u.id AND o.sale_id = u.sale_id AND o.status = ANY ($3::text[])
WHERE o.id IS NULL;

-- name: drain_reject
-- A record that Postgres refused, kept for a person; $9 is who made it, $10 when.
INSERT INTO rejects (partition, epoch, sequence, ordinal, sale_id, kind, record, error, actor, recorded_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, to_timestamp($10::float8 / 1000)) ON CONFLICT DO NOTHING;

-- name: positions_read
-- How far each partition is drained.
SELECT partition, epoch, sequence FROM positions;

-- name: installation_claim
-- Remembers the count of partitions and the namespace at the first start.
INSERT INTO installation (partitions, namespace) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: installation_read
-- What the first start chose.
SELECT partitions, namespace FROM installation;
