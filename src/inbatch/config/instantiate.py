"""What the configuration takes from Hydra: composition over the schema's defaults, and objects from nodes.

Importing this module tells Hydra the defaults, under the names that the first entry of conf/train.yaml and
of conf/evaluate.yaml has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hydra import utils
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException

from inbatch.config.schema import EvaluateConfig, RunConfig
from inbatch.config.targets import arguments, errors_under
from inbatch.config.types import is_node

# As plain values: OmegaConf's own checks of a dataclass end in messages without the key.
ConfigStore.instance().store("train_keys", asdict(RunConfig()))
ConfigStore.instance().store("evaluate_keys", asdict(EvaluateConfig()))


def instantiate(node: Any, *, key: str = "", **more: Any) -> Any:
    """Call `hydra.utils.instantiate`, out of which errors come as they were raised.

    Args:
        node: a mapping with a ``_target_``.
        key: where it stands; put in front of the key of a `ConfigError` about one of the node's own.
        more: further arguments of the target.
    """
    names = arguments(node) if isinstance(node, Mapping) and is_node(node) else {}
    try:
        return utils.instantiate(node, **more)
    except InstantiationException as error:
        with errors_under(key, names if key else ()):
            raise error.__cause__ or error from None
