"""The pipeline without Dagster."""
