"""Tests of randusers_assets.pipeline.publish."""
