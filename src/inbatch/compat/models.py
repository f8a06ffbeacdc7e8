"""Private names of torch, transformers and DeepSpeed."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn
    from torch.optim import Optimizer


def unscale_before_step(optimizer: Optimizer) -> None:
    """Have the gradient scaler of fp16 unscale before the step, also for a fused optimizer.

    A fused optimizer would unscale inside its step, so that clipping would see scaled gradients. The scaler
    reads this attribute and has no argument for it.
    """
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


@contextmanager
def saving_without_deepspeed() -> Iterator[None]:
    """Have transformers save a model without loading DeepSpeed, which takes a second.

    accelerate loads it to see whether the model is wrapped by it. None is where nobody has loaded it.
    """
    if "deepspeed" in sys.modules or find_spec("accelerate") is None:
        yield
        return
    from accelerate.utils import other

    asked = getattr(other, "is_deepspeed_available", None)
    if asked is None:
        yield
        return
    other.is_deepspeed_available = lambda: False
    try:
        yield
    finally:
        other.is_deepspeed_available = asked


def num_writes(tensor: Tensor) -> int:
    """Return how often a tensor was written to in place, which autograd counts without a public name.

    What fused optimizers write to parameters is not counted, but the number of their step is a tensor too.
    """
    return int(tensor._version)


def keep_graphs_whole() -> None:
    """Keep torch.compile from splitting graphs at the gradient buckets of DDP.

    A step runs inside DDP's forward. Splitting gains nothing, since only the last backward of a step reduces,
    and fails with small buckets. The setting has no public name.
    """
    import torch._dynamo

    torch._dynamo.config.optimize_ddp = False


def num_compiled_graphs() -> int:
    """Return how many graphs torch.compile has made in this process. Importing the counter takes a second."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def onednn_product(left_MK: Tensor, right_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Return ``left @ right.T + bias`` of float32 matrices on a CPU, [M, N], by oneDNN.

    torch multiplies by MKL unless a compiled graph names this operator, which has no public name.
    """
    import torch

    product: Tensor = torch.ops.mkldnn._linear_pointwise(left_MK, right_NK, bias_N, "none", [], "")
    return product


def flash_attention(
    query_PHd: Tensor,
    key_PHd: Tensor,
    value_PHd: Tensor,
    *,
    offsets: Tensor,
    longest: int,
    dropout: float,
    scale: float,
    window: tuple[int, int],
) -> Tensor:
    """Return attention within packed texts, [P, H, d], by the kernel below torch's `varlen_attn`.

    The public function has no dropout, and in early releases neither scale nor window.

    Args:
        query_PHd: heads of P packed tokens; keys and values likewise.
        offsets: where each text begins, and the end of the last, int32 [N + 1].
        longest: tokens of the longest text.
        dropout: share of attention weights that are set to zero.
        scale: factor of the products of queries and keys.
        window: tokens in front and behind that a token attends to; -1 for all.
    """
    import torch

    heads = (query_PHd, key_PHd, value_PHd)
    left, right = window
    causal = right == 0
    sides = {} if left < 0 else {"window_size_left": left, "window_size_right": right}
    output: Tensor = torch.ops.aten._flash_attention_forward(
        *heads, offsets, offsets, longest, longest, dropout, causal, False, scale=scale, **sides
    )[0]
    return output


def attention_name(model: nn.Module) -> str:
    """Return which attention a transformers model runs; it can be set in public, but not read."""
    return str(model.config._attn_implementation)  # type: ignore[union-attr]


def switch_off_shared_memory_collectives() -> None:
    """Keep DeepSpeed on CPUs from compiling collectives over shared memory; gloo does as well."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def leave_muon_uncompiled() -> None:
    """Have DeepSpeed load its Muon, which nothing here uses, without compiling it.

    Every stage asks whether the optimizer is one, and torch's compiler, which loads with it, takes seconds.
    """
    from deepspeed.runtime import compiler

    compiles = compiler.compile
    compiler.compile = lambda *args, **options: lambda function: function
    try:
        import_module("deepspeed.runtime.zero.muon.original_muon")
    finally:
        compiler.compile = compiles


def can_reset_units(module: object) -> bool:
    """Return whether torch can clear what a failed pass has left in the units of FSDP2: from 2.13 on."""
    return hasattr(module, "reset_iter_state")


def reset_units(module: Any) -> None:
    """Clear what passes have left in the units of FSDP2, but for gradients. For the outermost module."""
    module.reset_iter_state()


def drop_unit_gradients(units: Iterable[Any]) -> None:
    """Drop the gradients of FSDP2's units: their shards, and whole ones that wait to be reduced.

    The latter belong to parameters that a unit shows only while it is gathered.
    """
    for unit in units:
        for group in unit._get_fsdp_state()._fsdp_param_groups:
            for parameter in group.fsdp_params:
                parameter.sharded_param.grad = None
                parameter.unsharded_accumulated_grad = None
                if hasattr(parameter, "_unsharded_param"):
                    parameter._unsharded_param.grad = None
