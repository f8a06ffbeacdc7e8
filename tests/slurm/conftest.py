"""One cluster for all tests here; they need Slurm's programs and root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from helpers.namespaces import why_not
from helpers.slurm_cluster import NEEDED, Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two nodes."""
    reason = why_not(NEEDED)
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with TemporaryDirectory(prefix="slurm") as name:
        Path(name).chmod(0o755)  # munged refuses a socket that others cannot reach
        with Cluster(Path(name)) as cluster:
            yield cluster
