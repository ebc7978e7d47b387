"""The errors of the pipeline: one that a user reads, and the cases that code tells apart."""


class SnapshotError(Exception):
    """A step failed: what, where, and what to do; `retryable` if it may succeed later."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class Drift(SnapshotError):
    """A page contradicts page 1: the data changed while it was read."""

    def __init__(self, page: int, field: str, expected: object, got: object) -> None:
        super().__init__(f"page {page}: {field}: expected {expected}, got {got}", retryable=True)


class Conflict(SnapshotError):
    """An object changed between the look at it and the conditional write."""


class Altered(SnapshotError):
    """An object is not as this project wrote it."""
