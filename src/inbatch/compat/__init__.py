"""Every use of a private name of another library, one function each, with the reason for it.

`tests/test_compat.py` tests each of them, and `pyproject.toml` pins these libraries below the next release
that could take a name away. The libraries are imported when a function is called, so that importing this
module costs nothing.
"""

from __future__ import annotations

from inbatch.compat.dynamo import load_dynamo_when_needed
from inbatch.compat.hydra import (
    EditFile,
    hydra_files_edited,
    hydra_options_with_value,
    hydra_parser,
    serial_launcher,
    trials_of,
)
from inbatch.compat.lightning import (
    drop_anonymous,
    is_offline,
    leave_signals_alone,
    load_flop_counter_when_needed,
    load_part_of_torchmetrics,
    observe_ranks,
    sends_model,
)
from inbatch.compat.models import (
    attention_name,
    can_reset_units,
    drop_unit_gradients,
    flash_attention,
    keep_graphs_whole,
    leave_muon_uncompiled,
    num_compiled_graphs,
    num_writes,
    onednn_product,
    reset_units,
    saving_without_deepspeed,
    switch_off_shared_memory_collectives,
    unscale_before_step,
)
from inbatch.compat.transformers import load_part_of_scipy_optimize, read_models_once

__all__ = [
    "EditFile",
    "attention_name",
    "can_reset_units",
    "drop_anonymous",
    "drop_unit_gradients",
    "flash_attention",
    "hydra_files_edited",
    "hydra_options_with_value",
    "hydra_parser",
    "is_offline",
    "keep_graphs_whole",
    "leave_muon_uncompiled",
    "leave_signals_alone",
    "load_dynamo_when_needed",
    "load_flop_counter_when_needed",
    "load_part_of_scipy_optimize",
    "load_part_of_torchmetrics",
    "num_compiled_graphs",
    "num_writes",
    "observe_ranks",
    "onednn_product",
    "read_models_once",
    "reset_units",
    "saving_without_deepspeed",
    "sends_model",
    "serial_launcher",
    "switch_off_shared_memory_collectives",
    "trials_of",
    "unscale_before_step",
]
