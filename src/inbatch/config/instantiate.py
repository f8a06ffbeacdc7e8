"""Objects from nodes with a `_target_`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from hydra import utils
from hydra.errors import InstantiationException

from inbatch.config.targets import locate, named_keys


def instantiate(node: Any, **more: Any) -> Any:
    """`hydra.utils.instantiate`, out of which errors come as they were raised.

    An encoder's `ConfigError` names its key as the user types it, ``encoder.max_length``; what is a
    dataclass has been made before, by `targets.check_targets`.
    """
    try:
        return utils.instantiate(node, **more)
    except InstantiationException as error:
        cause = error.__cause__ or error
        target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
        if not target.startswith("inbatch.encoder."):
            raise cause from None
        with named_keys("encoder", inspect.signature(locate(target, "encoder")).parameters):
            raise cause from None
