"""Concatenate the texts of a chunk for a backbone with packed attention.

Shape letters: n texts, T tokens of a padded row, P real tokens of all rows, D dimension.

Each text keeps the positions that it has in a row of its own. The backbone's output is laid out in
padded rows again, so pooling is the same with and without packing. Nothing here waits for a device:
the chunk knows P on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inbatch.batch.batch import Chunk
from inbatch.encoder.pooling import padding_lengths
from inbatch.encoder.varlen import (
    ATTENTION,
    KERNEL_DTYPES,
    TextLengths,
    compute_dtype,
    kernel_runs_on,
    register,
)
from inbatch.errors import ConfigError

# "auto" packs where a GPU has a kernel for it, "always" wherever it can be computed.
Packing = Literal["never", "auto", "always"]

# Architectures whose packed and padded embeddings have been compared.
DECODERS = ("llama", "mistral", "qwen2", "qwen3")
ARCHITECTURES = (
    *("bert", "distilbert", "modernbert", "nomic_bert", "roberta", "xlm-roberta"),
    *DECODERS,
)
# Angles that follow the longest text of a batch differ where its texts are packed.
_STRETCHED = ("dynamic", "longrope")
_HEAD_MULTIPLE, _HEAD_MOST = 8, 256  # of the kernels


class Packed(NamedTuple):
    """The real tokens of a chunk."""

    input_ids: Tensor  # [1, P] int64
    position_ids: Tensor  # [1, P] int64
    place: Tensor  # [P] int64, of each token among the n * T of the padded chunk
    texts: TextLengths


def obstacle(model: PreTrainedModel) -> str | None:
    """Explain why a model cannot take packed texts; None where it can."""
    config, name = model.config, type(model).__name__
    own = type(model).__module__.startswith("transformers.")
    if not own or config.model_type not in ARCHITECTURES or getattr(config, "is_decoder", False):
        return f"{name} has no attention without padding"
    turned = config.model_type in DECODERS and not getattr(config, "is_causal", True)
    if turned and getattr(config, "sliding_window", None):  # of one token more than kernels count
        return f"the window of {name} goes in both directions"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in _STRETCHED:
        return f"rotary positions of {name} follow the longest text ({rope['rope_type']})"
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size % _HEAD_MULTIPLE or size > _HEAD_MOST:
        return f"attention without padding takes heads of 8, 16, ... 256 dimensions, not {size}"
    return None


def prepare_packing(model: PreTrainedModel, attention: str) -> Packing:
    """Give a model the attention for packed texts where `attention` is auto or varlen.

    Raises:
        ConfigError: varlen for a model that cannot take packed texts.
    """
    if attention not in ("auto", "varlen"):
        return "never"
    problem = obstacle(model)
    if problem is not None and attention == "varlen":
        raise ConfigError(
            "attention", f"cannot be used here ({problem})", "set attention=auto", value=attention
        )
    if problem is not None:
        return "never"
    register()
    model.set_attn_implementation(ATTENTION)
    return "auto" if attention == "auto" else "always"


def packs(packing: Packing, device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether chunks on a device go without padding, for a model of this dtype and under autocast."""
    if packing == "never" or device.type == "cpu":
        return packing == "always"
    return compute_dtype(device.type, dtype) in KERNEL_DTYPES and kernel_runs_on(device)


def pack(chunk: Chunk, *, position_padding_id: int | None) -> Packed:
    """Remove the padding of a chunk.

    Args:
        chunk: padded rows.
        position_padding_id: the padding id that learned positions start after, as in RoBERTa;
            None where the first token of a text has position 0.
    """
    ids_nT, mask_nT = chunk.input_ids, chunk.attention_mask
    num_texts, width = ids_nT.shape
    lengths_n = mask_nT.sum(dim=1)
    ends_n = lengths_n.cumsum(0)
    num_tokens = int(ends_n[-1]) if chunk.num_tokens is None else chunk.num_tokens
    text_P = torch.repeat_interleave(
        torch.arange(num_texts, device=ids_nT.device), lengths_n, output_size=num_tokens
    )
    position_P = torch.arange(num_tokens, device=ids_nT.device) - (ends_n - lengths_n)[text_P]
    place_P = text_P * width + padding_lengths(mask_nT)[text_P] + position_P
    if position_padding_id is not None:
        counted_nT = ids_nT != position_padding_id
        positions_nT = counted_nT.cumsum(1) * counted_nT + position_padding_id
        position_P = positions_nT.flatten()[place_P]
    return Packed(
        input_ids=ids_nT.flatten()[place_P][None],
        position_ids=position_P[None],
        place=place_P,
        texts=TextLengths(torch.nn.functional.pad(ends_n, (1, 0)).to(torch.int32), width),
    )


def unpack(tokens_PD: Tensor, packed: Packed, shape: torch.Size) -> Tensor:
    """[P, D] -> [n, T, D], zero where there is padding."""
    rows, width = shape
    padded = tokens_PD.new_zeros(rows * width, tokens_PD.shape[-1])
    return padded.index_copy(0, packed.place, tokens_PD).view(rows, width, -1)


def packed_tokens(
    backbone: PreTrainedModel,
    chunk: Chunk,
    *,
    position_padding_id: int | None,
    states: Callable[[Any], Tensor],
) -> Tensor:
    """Token embeddings [n, T, D] of a chunk, computed without padding; zero where there is padding.

    Args:
        backbone: whose attention takes packed texts.
        chunk: padded rows.
        position_padding_id: see `pack`.
        states: the tokens [1, P, D] that an output of the backbone gives.
    """
    packed = pack(chunk, position_padding_id=position_padding_id)
    # transformers passes on a mask of four dimensions unchanged; without one it would make [P, P].
    no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=chunk.input_ids.device)
    texts = packed.texts
    output = backbone(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=no_mask,
        cu_seq_lens_q=texts.offsets,
        cu_seq_lens_k=texts.offsets,
        max_length_q=texts.max_length,
        max_length_k=texts.max_length,
    )
    return unpack(states(output)[0], packed, chunk.input_ids.shape)
