-- name: rejects_list
-- Rejected records in journal order: the unsettled ones, and with $1 the others too.
SELECT partition, epoch, sequence, ordinal, sale_id, kind, record, error, coalesce(recorded_at, at) AS recorded_at,
       resolution, resolved_at, resolved_by, reason
FROM rejects WHERE $1::boolean OR resolved_at IS NULL ORDER BY partition, epoch, sequence, ordinal;

-- name: rejects_count
-- How many records wait for a person.
SELECT count(*) FROM rejects WHERE resolved_at IS NULL;

-- name: rejects_lock_position
-- Keeps the drain of the partition $1 waiting; the counter that its outbox has reached.
SELECT outbox_position FROM positions WHERE partition = $1 FOR UPDATE;

-- name: rejects_move_outbox
-- The counter of the partition $1 after the events of a record that was applied late.
UPDATE positions SET outbox_position = $2 WHERE partition = $1;

-- name: rejects_unsettled
-- One rejected record that waits for a person, locked.
SELECT kind, record, sale_id, actor, coalesce(recorded_at, at) AS recorded_at FROM rejects
WHERE partition = $1 AND epoch = $2 AND sequence = $3 AND ordinal = $4 AND resolved_at IS NULL FOR UPDATE;

-- name: rejects_settle
-- Done with: $5 retried or discarded, $6 why, $7 by whom.
UPDATE rejects SET resolved_at = now(), resolution = $5, reason = $6, resolved_by = $7
WHERE partition = $1 AND epoch = $2 AND sequence = $3 AND ordinal = $4;

-- name: rejects_sale_changed
-- Has the sale $1 been changed at $2 or after it?
SELECT EXISTS (SELECT FROM sales WHERE id = $1 AND updated_at >= $2);
