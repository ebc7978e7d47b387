"""The pipeline without Dagster."""

import os

# mimalloc, which PyArrow allocates with, else commits huge pages of which a run fills too little:
# 35 MB more at 1,000,000 users. It reads this as PyArrow is imported.
os.environ.setdefault("MIMALLOC_ARENA_EAGER_COMMIT", "0")
