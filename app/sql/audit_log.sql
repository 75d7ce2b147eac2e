-- name: audit_log_record
-- An act on Postgres alone, by the actor $1.
INSERT INTO audit_log (at, actor, request_id, action, sale_id, subject, before, after)
VALUES (now(), $1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb);

-- name: audit_log_insert
-- Acts that were journalled, each once, in journal order.
INSERT INTO audit_log (at, actor, request_id, action, sale_id, subject, before, after,
                       partition, epoch, sequence, ordinal)
SELECT to_timestamp(u.at::float8 / 1000), u.actor, u.request_id, u.action, u.sale_id, u.subject, u.before::jsonb,
       u.after::jsonb, u.partition, u.epoch, u.sequence, u.ordinal
FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::int[], $5::bigint[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[])
    AS u (partition, epoch, sequence, ordinal, at, actor, request_id, action, sale_id, subject, before, after)
ORDER BY u.epoch, u.sequence, u.ordinal
ON CONFLICT (partition, epoch, sequence, ordinal) DO NOTHING;

-- name: audit_log_list
-- Acts, newest first. $1 sale, $2 actor, $3 action, $4 from, $5 to, $6 the last row of the page before, $7 rows
SELECT id, at, actor, request_id, action, sale_id, subject, before, after
FROM audit_log
WHERE ($1::text IS NULL OR sale_id = $1) AND ($2::text IS NULL OR actor = $2)
  AND ($3::text IS NULL OR action = $3)
  AND ($4::float8 IS NULL OR at >= to_timestamp($4 / 1000))
  AND ($5::float8 IS NULL OR at < to_timestamp($5 / 1000))
  AND ($6::bigint IS NULL OR id < $6)
ORDER BY id DESC LIMIT $7;

-- name: audit_log_sale
-- The sale $1 before an act on it.
SELECT name, opens_at, closes_at, hold_seconds, max_hold_seconds, paused, closed FROM sales WHERE id = $1;

-- name: audit_log_skus
-- Of the SKUs that the sale's new rules name, the first $5 that are new or get another limit, and how many more.
SELECT l.sku, l.quantity, nullif(l.most, 0) AS most, k.sku IS NULL AS is_new, k.limit_per_customer AS most_before,
       count(*) OVER () AS changed
FROM unnest($2::text[], $3::bigint[], $4::int[]) WITH ORDINALITY AS l (sku, quantity, most, place)
LEFT JOIN sale_skus k ON k.sale_id = $1 AND k.sku = l.sku
WHERE k.sku IS NULL OR k.limit_per_customer IS DISTINCT FROM nullif(l.most, 0)
ORDER BY l.place LIMIT $5;
