"""The tests of `deploy/`, on servers that stand in for AWS."""
