"""Tests of randusers_assets.pipeline.storage."""
