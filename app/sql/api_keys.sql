-- name: api_keys_create
-- A new key, by its hash.
INSERT INTO api_keys (id, name, scope, hash) VALUES ($1, $2, $3, $4);

-- name: api_keys_list
-- All keys, revoked ones too, oldest first.
SELECT id, name, scope, created_at, revoked_at FROM api_keys ORDER BY created_at, id;

-- name: api_keys_revoke
-- Revokes the key $1; a repeat leaves the first time.
UPDATE api_keys k SET revoked_at = coalesce(k.revoked_at, now())
FROM (SELECT id, revoked_at IS NOT NULL AS was_revoked FROM api_keys WHERE id = $1 FOR UPDATE) b
WHERE k.id = b.id RETURNING k.name, k.scope, b.was_revoked;

-- name: api_keys_load
-- The keys that are accepted.
SELECT id, name, scope, hash FROM api_keys WHERE revoked_at IS NULL;
