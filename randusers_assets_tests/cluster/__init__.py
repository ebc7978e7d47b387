"""Several machines, as deploy/celery/ sets them up: `make test-cluster`."""
