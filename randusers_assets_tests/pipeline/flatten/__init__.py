"""Tests of randusers_assets.pipeline.flatten."""
