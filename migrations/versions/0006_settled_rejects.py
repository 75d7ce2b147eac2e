"""Why: a person settles a rejected record by applying it again or giving it up, and others must be able to
see who did which, when and why. Applied again, it needs its own time, not that of the refusal.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

SETTLED = """
ALTER TABLE rejects
    ADD COLUMN recorded_at timestamptz,
    ADD COLUMN resolution text CHECK (resolution IN ('retried', 'discarded')),
    ADD COLUMN reason text,
    ADD COLUMN resolved_by text,
    ADD CHECK (resolution IS NULL OR resolved_at IS NOT NULL),
    ADD CHECK (resolution <> 'discarded' OR reason IS NOT NULL)
"""


def upgrade() -> None:
    op.execute(SETTLED)
