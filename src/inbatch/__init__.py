"""inbatch: exact, fast, distributed in-batch-negative training of text bi-encoders.

::

    import inbatch

    result = inbatch.train("pairs.csv", encoder="sentence-transformers/all-MiniLM-L6-v2", output_dir="out")
    inbatch.evaluate(result.model, "test.csv")
    inbatch.load_encoder(result.model).encode(["a text"])

The life of a batch, which is also the order to read the code in::

    data/        rows in shards -> a plan of global batches -> this rank's slice -> tokens -> Batch
    encoder/     chunk of tokens -> embeddings [n, D]
    gather/      local embeddings -> the global batch; the only collectives of a step
    losses/      pure functions of embeddings -> mean over the rows this rank owns
    gradcache/   embed, loss, gradients of the embeddings, re-embed chunk by chunk, backward
    strategies/  ddp, fsdp, deepspeed: accumulate locally, reduce once
    optim/       parameter groups, schedules
    export/      sentence-transformers directory, model card, plots

`run/` wires them into a training run; `evaluation/` and `callbacks/` watch it; `guide/` holds the frozen
guide's embeddings; `corpus/` embeds texts of any source; `doctor/` examines a machine. Names are imported
on first use, so that ``import inbatch`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inbatch import losses as losses
    from inbatch.api.evaluate import evaluate as evaluate
    from inbatch.api.evaluate import load_encoder as load_encoder
    from inbatch.api.rounds import embed as embed
    from inbatch.api.rounds import merge as merge
    from inbatch.api.rounds import mine as mine
    from inbatch.api.train import train as train
    from inbatch.config.schema import RunConfig as RunConfig
    from inbatch.data.plan import samplers as samplers
    from inbatch.encoder.model import Encoder as Encoder
    from inbatch.errors import ConfigError as ConfigError
    from inbatch.run.results import TrainResult as TrainResult
    from inbatch.step.contrastive_step import ContrastiveStep as ContrastiveStep

__version__ = "0.1.0"

_HOMES = {
    "ConfigError": "inbatch.errors",
    "ContrastiveStep": "inbatch.step.contrastive_step",
    "Encoder": "inbatch.encoder.model",
    "RunConfig": "inbatch.config.schema",
    "TrainResult": "inbatch.run.results",
    "embed": "inbatch.api.rounds",
    "evaluate": "inbatch.api.evaluate",
    "load_encoder": "inbatch.api.evaluate",
    "merge": "inbatch.api.rounds",
    "mine": "inbatch.api.rounds",
    "train": "inbatch.api.train",
}
_MODULES = {"losses": "inbatch.losses", "samplers": "inbatch.data.plan.samplers"}

__all__ = [
    "ConfigError",
    "ContrastiveStep",
    "Encoder",
    "RunConfig",
    "TrainResult",
    "embed",
    "evaluate",
    "load_encoder",
    "losses",
    "merge",
    "mine",
    "samplers",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
