"""The snapshot measured against what one would write or install instead: `python -m benchmarks`."""
