"""Why: Postgres must remember what an operator set of a sale, and every change of its allocated stock.

Stock itself is not stored: it is the sum of the movements, less what reservations and orders hold. Movements
are history, so a trigger keeps them append-only. Times are the Redis server's, which alone decides.
"""

from alembic import op

revision = "0001"
down_revision = None

FORBID_CHANGE = """
CREATE FUNCTION forbid_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed or removed', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$$
"""

SALES = """
CREATE TABLE sales (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    partition integer NOT NULL CHECK (partition >= 0),
    name text NOT NULL CHECK (length(name) >= 1),
    opens_at timestamptz NOT NULL,
    closes_at timestamptz NOT NULL,
    hold_seconds integer NOT NULL CHECK (hold_seconds >= 1),
    max_hold_seconds integer NOT NULL,
    paused boolean NOT NULL DEFAULT false,
    closed boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK (opens_at < closes_at),
    CHECK (hold_seconds <= max_hold_seconds),
    CHECK (created_at <= updated_at)
)
"""

SALE_SKUS = """
CREATE TABLE sale_skus (
    sale_id text NOT NULL REFERENCES sales,
    sku text NOT NULL CHECK (length(sku) BETWEEN 1 AND 64),
    position integer NOT NULL CHECK (position >= 1),
    first_quantity bigint NOT NULL CHECK (first_quantity >= 0),
    limit_per_customer integer CHECK (limit_per_customer >= 1),
    PRIMARY KEY (sale_id, sku),
    UNIQUE (sale_id, position)
)
"""

# `allocated` … `sold` are the stock row right after a movement: what a replay of its key answers.
MOVEMENTS = """
CREATE TABLE movements (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sale_id text NOT NULL,
    sku text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('allocated', 'restocked', 'withdrawn', 'written_off')),
    quantity bigint NOT NULL,
    allocated bigint CHECK (allocated >= 0),
    available bigint CHECK (available >= 0),
    held bigint CHECK (held >= 0),
    sold bigint CHECK (sold >= 0),
    key text,
    digest text,
    reason text,
    partition integer NOT NULL,
    epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    ordinal integer NOT NULL,
    at timestamptz NOT NULL,
    FOREIGN KEY (sale_id, sku) REFERENCES sale_skus,
    UNIQUE (sale_id, key),
    UNIQUE (partition, epoch, sequence, ordinal, sku),
    CHECK (CASE WHEN kind = 'allocated' THEN quantity >= 0
                WHEN kind = 'restocked' THEN quantity > 0
                ELSE quantity < 0 END),
    CHECK (allocated = available + held + sold),
    CHECK ((kind IN ('restocked', 'withdrawn'))
           = (num_nonnulls(allocated, available, held, sold, key, digest) = 6)),
    CHECK (num_nonnulls(allocated, available, held, sold, key, digest) IN (0, 6))
)
"""


def upgrade() -> None:
    op.execute(FORBID_CHANGE)
    op.execute(SALES)
    op.execute("CREATE INDEX sales_newest ON sales (created_at, id)")
    op.execute(SALE_SKUS)
    op.execute(MOVEMENTS)
    op.execute("CREATE INDEX movements_of_sale ON movements (sale_id, id)")
    op.execute(
        "CREATE TRIGGER movements_append_only BEFORE UPDATE OR DELETE ON movements"
        " FOR EACH ROW EXECUTE FUNCTION forbid_change()"
    )
