"""S3 and temp files."""
