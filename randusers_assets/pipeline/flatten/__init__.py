"""From JSON users to flat columns."""
