"""Why: callers are known by API keys, of which only hashes may be stored; and an audit's answer, made by the
drain inside its transaction, must reach the process that asked.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

API_KEYS = """
CREATE TABLE api_keys (
    id text PRIMARY KEY,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    scope text NOT NULL CHECK (scope IN ('storefront', 'admin')),
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz CHECK (revoked_at >= created_at)
)
"""

AUDITS = """
CREATE TABLE audits (
    id text PRIMARY KEY,
    sale_id text NOT NULL,
    result jsonb NOT NULL,
    at timestamptz NOT NULL
)
"""


def upgrade() -> None:
    op.execute(API_KEYS)
    op.execute(AUDITS)
