"""How long a test waits for what must happen."""

import os


def patience(seconds: float = 60) -> float:
    """The bound of a wait: so many seconds, times RANDUSERS_TEST_PATIENCE for a busy machine."""
    return seconds * float(os.environ.get("RANDUSERS_TEST_PATIENCE", "1"))
