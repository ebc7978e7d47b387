"""From an audited CSV to a proved publication."""
