"""Where ranks find each other before any process group: a store that a launcher's rank 0 keeps."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import (
    DistNetworkError,
    DistStoreError,
    HashStore,
    PrefixStore,
    Store,
    TCPStore,
)

from inbatch.errors import ConfigError
from inbatch.strategies.launcher import cluster_environment, meeting_ranks
from inbatch.strategies.topology import find_launcher


class Place(NamedTuple):
    """One process among those that a launcher has started; 0 of 1 where none has."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on its node


def this_place() -> Place:
    """Of this process, as torchrun or srun say."""
    if find_launcher() is None:
        return Place()
    environment = cluster_environment()
    return Place(environment.global_rank(), environment.world_size(), int(environment.local_rank()))


def node_name() -> str:
    """Of this node, as Slurm calls it, else its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def open_stores(count: int, *, timeout_s: float) -> list[Store]:
    """Connect so many times to the store of all ranks; a thread that waits blocks its own connection only.

    Nobody waits for the other ranks here. One process has a store of its own.

    Raises:
        ConfigError: rank 0 cannot listen, or does not answer within `timeout_s`.
    """
    if find_launcher() is None:
        return [HashStore()] * count
    environment = cluster_environment()
    # torchrun keeps a store at the same address itself.
    serves = environment.global_rank() == 0 and not _is_kept_by_torchrun()
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    where = environment.main_address, environment.main_port
    stores: list[Store] = []
    for number in range(count):
        try:
            with meeting_ranks():
                store = TCPStore(
                    *where,
                    is_master=serves and number == 0,
                    wait_for_workers=False,
                    timeout=timedelta(seconds=timeout_s),
                )
        except (DistNetworkError, DistStoreError) as error:
            raise ConfigError(
                f"rank 0 at {where[0]}:{where[1]}",
                f"does not answer within {timeout_s:g} s",
                "see whether it has started, and whether this node reaches that address",
            ) from error
        stores.append(PrefixStore(f"meeting/{attempt}", store))
    return stores


def _is_kept_by_torchrun() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
