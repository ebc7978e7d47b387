"""Tests of randusers_assets.cli.main."""
