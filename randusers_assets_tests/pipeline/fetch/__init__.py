"""Tests of randusers_assets.pipeline.fetch."""
