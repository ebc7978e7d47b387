"""The Dagster UI over a real run, in a real browser."""
