"""Why: who did what, and when, must be known for every act of an operator, also long afterwards.

A row is written in the very transaction that makes the change, so there is none without the other. Acts
that travel in the journal have their place there, which keeps a batch that is applied twice from telling
them twice; acts on Postgres alone, such as making a key, have none. before and after are what the act
changed, not whole tables: of a sale's SKUs those that it touched, the first hundred. The only index beside
the keys is for the list of one sale, since each costs the drain. A rejected record keeps its actor, too:
its row is written once the record is applied.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

AUDIT_LOG = """
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL CHECK (length(actor) BETWEEN 1 AND 200),
    request_id text CHECK (length(request_id) BETWEEN 1 AND 128),
    action text NOT NULL CHECK (action ~ '^[a-z_]+[.][a-z_]+$'),
    sale_id text,
    subject text,
    before jsonb,
    after jsonb,
    partition integer,
    epoch bigint,
    sequence bigint,
    ordinal integer,
    UNIQUE (partition, epoch, sequence, ordinal),
    CHECK (num_nonnulls(partition, epoch, sequence, ordinal) IN (0, 4))
)
"""


def upgrade() -> None:
    op.execute(AUDIT_LOG)
    op.execute("CREATE INDEX audit_log_of_sale ON audit_log (sale_id, id)")
    op.execute(
        "CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log"
        " FOR EACH ROW EXECUTE FUNCTION forbid_change()"
    )
    op.execute(
        "CREATE TRIGGER audit_log_not_emptied BEFORE TRUNCATE ON audit_log"
        " FOR EACH STATEMENT EXECUTE FUNCTION forbid_change()"
    )
    op.execute("ALTER TABLE rejects ADD COLUMN actor text")
