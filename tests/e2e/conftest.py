"""Clusters of `berth up`: one that tests of a module share and leave as they found it, and fresh ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.up_cluster import UpCluster


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpCluster]:
    """A running cluster with six demo nodes, for all tests of one module."""
    cluster = UpCluster(tmp_path_factory.mktemp("shared") / "cluster")
    cluster.up("--nodes", "6")
    yield cluster
    cluster.down()


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[UpCluster]:
    """A folder in which nothing runs yet; what the test starts there is stopped."""
    cluster = UpCluster(tmp_path / "cluster")
    yield cluster
    cluster.down()
