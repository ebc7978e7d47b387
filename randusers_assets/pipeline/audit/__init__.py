"""Row rules, gates and the CSV."""
