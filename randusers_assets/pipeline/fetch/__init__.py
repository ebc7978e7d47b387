"""From the API to a raw snapshot."""
