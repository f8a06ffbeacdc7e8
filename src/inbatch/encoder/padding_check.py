"""Whether a text has one embedding, whatever stands beside it in a chunk."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inbatch.encoder.backbone import position_limit
from inbatch.encoder.transformer_config import one_line
from inbatch.errors import ConfigError

#: Architectures for which a test compares padded texts with texts alone.
COMPARED = (
    *(
        "bert",
        "distilbert",
        "mpnet",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
        "modernbert",
        "electra",
    ),
    *("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "t5", "mt5", "umt5"),
)
LIMIT = 1e-3  # of the states' norm; rounding is below 1e-5 in float32, and weights of 16 bits err by more
_SHORT, _LONG = 4, 12  # tokens


def check_padding(model: PreTrainedModel, *, padding_side: str, pad_id: int) -> None:
    """Refuse a transformer that gives a text other states beside a longer one.

    Positions that count padding, or attention that pads to a block, do so: then an embedding would depend on
    how a batch is cut into chunks.

    Raises:
        ConfigError: states differ by more than rounding.
    """
    if model.config.model_type in COMPARED or model.dtype != torch.float32:
        return
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            error = _error(model, padding_side == "left", pad_id)
    except (RuntimeError, ValueError) as problem:
        raise ConfigError(
            "model",
            f"({type(model).__name__}) cannot embed a text of {_SHORT} tokens ({one_line(problem)})",
            "give another architecture",
        ) from problem
    finally:
        model.train(was_training)
    if error > LIMIT:
        side = "right" if padding_side == "left" else "left"
        raise ConfigError(
            "model",
            f"({type(model).__name__}, padded on the {padding_side}) gives a text other embeddings beside a "
            f"longer one, by {error:.1%}",
            f"give a tokenizer with padding_side={side}, or another architecture",
        )


def _error(model: PreTrainedModel, left: bool, pad_id: int) -> float:
    """Norm of the difference over the norm, for a text alone and beside a longer one."""
    rows = next(model.get_input_embeddings().parameters()).shape[0]
    most = min(_LONG, position_limit(model) or _LONG)
    words = [word for word in range(min(rows, 64)) if word != pad_id][-most:]
    if len(words) <= _SHORT:  # a toy
        return 0.0
    longer = torch.tensor(words, device=model.device)
    short = longer[:_SHORT]
    pad = torch.full((len(words) - _SHORT,), pad_id, device=model.device)
    padded = torch.cat([pad, short] if left else [short, pad])
    alone = _states(model, short[None], torch.ones(1, _SHORT, device=model.device))[0]
    mask = torch.ones(2, len(words), device=model.device)
    mask[0] = (padded != pad_id).float()
    beside = _states(model, torch.stack([padded, longer]), mask)[0]
    beside = beside[-_SHORT:] if left else beside[:_SHORT]
    return float((beside - alone).norm() / alone.norm())


def _states(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    states: Tensor = model(input_ids=ids, attention_mask=mask.long())[0]
    return states
