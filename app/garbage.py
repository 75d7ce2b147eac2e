"""The garbage collector in processes that make many objects at once and hardly any cycles."""

import gc


def collect_rarely() -> None:
    """What is there now stays, and a batch of requests or records is no garbage yet: looking at them costs up
    to a tenth of the process' time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
