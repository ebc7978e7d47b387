"""A local stand-in for the API and for S3, started by one command."""
