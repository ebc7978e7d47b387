"""A daily snapshot of a paginated REST API, published to Amazon S3 as a proved CSV."""
