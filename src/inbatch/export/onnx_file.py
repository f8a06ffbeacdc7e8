"""A transformer as an ONNX file, in the place and form in which sentence-transformers looks for one.

The file holds the transformer alone. Pooling and head stay where they are: sentence-transformers computes
them in torch behind ``backend="onnx"``. Shape letters: n texts, T tokens, H hidden size.

    inputs   input_ids, attention_mask   int64 [n, T]
    output   last_hidden_state           float32 [n, T, H]
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from inbatch.encoder.transformer_config import one_line
from inbatch.errors import ConfigError

FOLDER = "onnx"  # beside the transformer's weights
FLOAT32_FILE = "model.onnx"
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "last_hidden_state"
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_ONE_FILE_BYTES = 1.5e9  # protobuf holds less than 2 GiB, of weights and graph


def check_packages() -> None:
    """Refuse to start where the packages of the extra are not installed.

    Raises:
        ConfigError: it names the command that installs them.
    """
    absent = [name for name in _PACKAGES if find_spec(name) is None]
    if absent:
        plural = "s" * (len(absent) > 1)
        raise ConfigError(
            "--onnx",
            f"needs the package{plural} {', '.join(absent)}",
            "run pip install 'inbatch[onnx]'",
        )


def write_onnx(backbone: PreTrainedModel, path: Path) -> None:
    """Write a transformer's computation and weights in float32; any number of texts and tokens go in.

    Weights too large for one file stand beside it, in ``<name>_data``, as sentence-transformers fetches them.

    Args:
        backbone: in float32 on the CPU, in evaluation mode, without adapters.
        path: of the file, in a folder that is there.

    Raises:
        ConfigError: torch's exporter cannot follow the architecture.
    """
    import onnx_ir

    # Two of each, since a dimension of one is taken for a constant.
    ids_nT = torch.full((2, 6), 5)
    sizes = dict.fromkeys(range(2), torch.export.Dim.DYNAMIC)
    try:
        with without_notices(), torch.no_grad():
            program = torch.onnx.export(
                _States(backbone),
                (ids_nT, torch.ones_like(ids_nT)),
                dynamo=True,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=(sizes, sizes),
                verbose=False,
            )
    except Exception as error:  # whatever the exporter or the model raises
        raise ConfigError(
            type(backbone).__name__,
            f"cannot be written as ONNX ({one_line(error)})",
            "give a model of another architecture: BERT, DistilBERT, MPNet, XLM-R and ModernBERT are tested",
        ) from error
    assert program is not None
    _forget_this_machine(program.model)
    num_bytes = sum(4 * weight.numel() for weight in backbone.state_dict().values())
    beside = f"{path.name}_data" if num_bytes > _ONE_FILE_BYTES else None
    onnx_ir.save(program.model, path, external_data=beside)


@final
class _States(nn.Module):
    """A transformer whose only output is its last hidden state."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states_nTH: Tensor = self.backbone(input_ids=input_ids, attention_mask=attention_mask)[0]
        return states_nTH


def _forget_this_machine(model: Any) -> None:
    """Remove the notes of the exporter, which hold the paths of the files that it went through."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
        graph.metadata_props.clear()
        graph.doc_string = None
    model.metadata_props.clear()


@contextmanager
def without_notices() -> Iterator[None]:
    """Inside, neither the exporter nor onnxruntime tells of its own progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
