"""Objects from nodes with a ``_target_``, by Hydra."""

from __future__ import annotations

import inspect
from typing import Any

from hydra import utils
from hydra.errors import InstantiationException

from inbatch.config.targets import errors_under, locate


def instantiate(node: Any, *, key: str = "", **more: Any) -> Any:
    """Call `hydra.utils.instantiate`, out of which errors come as they were raised.

    Args:
        node: a mapping with a ``_target_``.
        key: where it stands; put in front of the key of a `ConfigError` about an argument of the target.
        more: further arguments of the target.
    """
    try:
        # Lists as lists: Hydra's own would take apart the dataclasses in them.
        return utils.instantiate(node, **{"_convert_": "object", **more})
    except InstantiationException as error:
        names = inspect.signature(locate(node["_target_"], key)).parameters if key else ()
        with errors_under(key, names):
            raise error.__cause__ or error from None
