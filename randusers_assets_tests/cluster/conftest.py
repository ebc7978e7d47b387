"""One cluster for all tests of this directory."""

from collections.abc import Iterator

import dagster as dg
import pytest

from randusers_assets_tests.cluster.deployment import Cluster, deployed, instance_of
from randusers_assets_tests.cluster.network import why_not


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """PostgreSQL, Redis, code server, UI, daemon and two hosts with a worker each."""
    if reason := why_not():
        pytest.skip(reason)
    with deployed(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def shared(cluster: Cluster) -> Iterator[dg.DagsterInstance]:
    """The instance that all of the cluster shares."""
    with instance_of(cluster) as instance:
        yield instance
