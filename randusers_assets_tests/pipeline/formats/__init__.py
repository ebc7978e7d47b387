"""Tests of randusers_assets.pipeline.formats."""
