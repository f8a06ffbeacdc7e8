"""Whether tokens see later ones.

transformers lets the decoders that it implements attend in both directions where their configuration says
``is_causal: false``. It is saved with the model, so that whatever loads it with transformers does the same.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from inbatch.errors import ConfigError


def set_direction(config: PretrainedConfig, bidirectional: bool | None) -> None:
    """Write into a configuration whether tokens see later ones; None leaves it as it is."""
    if bidirectional is not None:
        config.is_causal = not bidirectional


def agree_on_direction(model: PreTrainedModel, bidirectional: bool | None) -> None:
    """Let all parts of a model say what its configuration says, and see whether they do it.

    Raises:
        ConfigError: tokens see later ones although they should not, or the other way round.
    """
    if getattr(model.config, "is_causal", True) is False:
        for module in model.modules():  # attention without a mask asks them
            if hasattr(module, "is_causal"):
                setattr(module, "is_causal", False)  # noqa: B010 - no class declares it
    if bidirectional is not None and sees_later_tokens(model) != bidirectional:
        name = type(model).__name__
        do = "see later ones" if not bidirectional else "do not see later ones"
        raise ConfigError(
            "bidirectional",
            f"does not go with {name}, whose tokens {do} all the same",
            "leave it out, or give another architecture",
            value=bidirectional,
        )


def sees_later_tokens(model: PreTrainedModel) -> bool:
    """Tell whether another last token changes the state of the first."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            one, other = (_first_state(model, last) for last in (7, 8))
    finally:
        model.train(was_training)
    return not torch.equal(one, other)


def _first_state(model: PreTrainedModel, last: int) -> Tensor:
    ids = torch.tensor([[4, 5, 6, last]], device=model.device)
    state: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0][0, 0]
    return state
