"""Why: reservations and orders are what buyers were promised; Redis forgets them, Postgres must not.

An order shares the last 26 characters of its reservation's id, and a reservation has at most one. Every index
costs the drain at 5,000 holds a second, so there is one for each list that is served and none besides; pages
keep room so that a change of status stays on its page and touches no index.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

# ended_at: when it was released or expired; a late payment that confirms it leaves the time of the expiry.
RESERVATIONS = """
CREATE TABLE reservations (
    id text PRIMARY KEY CHECK (id LIKE 'res\\_%' AND length(id) = 30),
    sale_id text NOT NULL,
    customer_id text NOT NULL CHECK (length(customer_id) BETWEEN 1 AND 64),
    status text NOT NULL CHECK (status IN ('held', 'confirmed', 'released', 'expired')),
    items jsonb NOT NULL CHECK (jsonb_typeof(items) = 'array' AND jsonb_array_length(items) >= 1),
    digest text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    CHECK (NOT items @? '$[*].quantity ? (@ < 1)'),
    CHECK (expires_at >= created_at),
    CHECK (CASE status WHEN 'held' THEN ended_at IS NULL
                       WHEN 'confirmed' THEN true
                       ELSE ended_at IS NOT NULL END)
) WITH (fillfactor = 85)
"""

# metadata: json, not jsonb, keeps the shop's bytes as they were given; event_id is the outbox row of its
# confirmation, written in the same transaction.
ORDERS = """
CREATE TABLE orders (
    id text PRIMARY KEY CHECK (id LIKE 'ord\\_%'),
    reservation_id text NOT NULL UNIQUE REFERENCES reservations,
    sale_id text NOT NULL,
    customer_id text NOT NULL,
    status text NOT NULL CHECK (status IN ('confirmed', 'cancelled')),
    items jsonb NOT NULL,
    payment_reference text NOT NULL CHECK (length(payment_reference) BETWEEN 1 AND 255),
    metadata json NOT NULL CHECK (json_typeof(metadata) = 'object'),
    reacquired boolean NOT NULL,
    confirmed_at timestamptz NOT NULL,
    cancelled_at timestamptz,
    cancel_reason text,
    restocked boolean,
    event_id uuid NOT NULL,
    CHECK (substr(id, 5) = substr(reservation_id, 5)),
    CHECK ((status = 'cancelled') = (cancelled_at IS NOT NULL)),
    CHECK ((status = 'cancelled') = (restocked IS NOT NULL)),
    CHECK (cancel_reason IS NULL OR status = 'cancelled'),
    CHECK (cancelled_at >= confirmed_at)
) WITH (fillfactor = 90)
"""

REFUNDS = """
CREATE TABLE refunds (
    reservation_id text NOT NULL REFERENCES reservations,
    payment_reference text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (reservation_id, payment_reference)
)
"""


def upgrade() -> None:
    op.execute(RESERVATIONS)
    op.execute("CREATE INDEX reservations_newest ON reservations (sale_id, created_at, id)")
    op.execute("CREATE INDEX reservations_of_customer ON reservations (sale_id, customer_id)")
    op.execute(ORDERS)
    op.execute("CREATE INDEX orders_newest ON orders (sale_id, confirmed_at, id)")
    op.execute("CREATE INDEX orders_of_customer ON orders (sale_id, customer_id)")
    op.execute(REFUNDS)
