"""Hydra's part in the configuration: composition over the schema's defaults, and objects from nodes.

Importing this module tells Hydra the defaults, under the names that the first entry of conf/train.yaml and
of conf/evaluate.yaml has.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict
from typing import Any

from hydra import utils
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException

from inbatch.config.schema import EvaluateConfig, RunConfig
from inbatch.config.targets import errors_under, locate

# As plain values: OmegaConf's own checks of a dataclass end in messages without the key.
ConfigStore.instance().store("train_keys", asdict(RunConfig()))
ConfigStore.instance().store("evaluate_keys", asdict(EvaluateConfig()))


def instantiate(node: Any, *, key: str = "", **more: Any) -> Any:
    """Call `hydra.utils.instantiate`, out of which errors come as they were raised.

    Args:
        node: a mapping with a ``_target_``.
        key: where it stands; put in front of the key of a `ConfigError` about an argument of the target.
        more: further arguments of the target.
    """
    try:
        return utils.instantiate(node, **more)
    except InstantiationException as error:
        names = inspect.signature(locate(node["_target_"], key)).parameters if key else ()
        with errors_under(key, names):
            raise error.__cause__ or error from None
