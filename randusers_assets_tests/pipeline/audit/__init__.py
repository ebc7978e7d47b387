"""Tests of randusers_assets.pipeline.audit."""
