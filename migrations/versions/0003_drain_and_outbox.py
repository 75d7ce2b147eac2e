"""Why: the drain needs a fence per partition, and what it wrote must reach others in order and exactly once.

The outbox has the columns of Debezium's outbox event router, is insert-only, and knows nothing of publishing.
`position` is dense per partition and given under the lock of the partition's row in `positions`; a global
sequence would let a reader skip a transaction that commits late. payload is json, not jsonb: an order's
metadata passes through it, and jsonb refuses numbers and escapes that JSON allows.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

OUTBOX = """
CREATE TABLE outbox (
    id uuid PRIMARY KEY,
    aggregatetype text NOT NULL CHECK (aggregatetype IN ('reservation', 'order', 'stock', 'sale')),
    aggregateid text NOT NULL,
    type text NOT NULL,
    payload json NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL CHECK (position >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (partition, position)
)
"""

# The last journal entry that is in these tables, the entry that its epoch continued, and the last counter
# given to an outbox row.
POSITIONS = """
CREATE TABLE positions (
    partition integer PRIMARY KEY CHECK (partition >= 0),
    epoch bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    sequence bigint NOT NULL DEFAULT 0 CHECK (sequence >= 0),
    previous_epoch bigint NOT NULL DEFAULT 0,
    previous_sequence bigint NOT NULL DEFAULT 0,
    outbox_position bigint NOT NULL DEFAULT 0 CHECK (outbox_position >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
)
"""

# Journal records that Postgres refuses: each waits here for a person and blocks nothing.
REJECTS = """
CREATE TABLE rejects (
    partition integer NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    ordinal integer NOT NULL,
    sale_id text,
    kind text NOT NULL,
    record text NOT NULL,
    error text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    PRIMARY KEY (partition, epoch, sequence, ordinal)
)
"""

# How many partitions the sales of this installation are spread into, and where in Redis: fixed at the first
# start, because a sale in two places would be sold twice.
INSTALLATION = """
CREATE TABLE installation (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    partitions integer NOT NULL CHECK (partitions >= 1),
    namespace text NOT NULL
)
"""


def upgrade() -> None:
    op.execute(OUTBOX)
    op.execute(
        "CREATE TRIGGER outbox_insert_only BEFORE UPDATE OR DELETE ON outbox"
        " FOR EACH ROW EXECUTE FUNCTION forbid_change()"
    )
    op.execute(POSITIONS)
    op.execute(REJECTS)
    op.execute(INSTALLATION)
