-- name: api_keys_create
-- A new key, by its hash.
INSERT INTO api_keys (id, name, scope, hash) VALUES ($1, $2, $3, $4);

-- name: api_keys_list
-- All keys, revoked ones too, oldest first.
SELECT id, name, scope, created_at, revoked_at FROM api_keys ORDER BY created_at, id;

-- name: api_keys_revoke
-- Revokes the key $1; a repeat leaves the first time.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING id;

-- name: api_keys_load
-- The keys that are accepted.
SELECT id, name, scope, hash FROM api_keys WHERE revoked_at IS NULL;
