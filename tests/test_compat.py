"""The private names of other libraries are there and do what `inbatch.compat` needs of them."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from omegaconf import OmegaConf
from torch import nn
from transformers import BertConfig, BertModel

from inbatch import compat
from inbatch.compat.transformers import from_last_line

SRC = Path(__file__).parents[1] / "src"
OURS = {"_target_", "_partial_", "_replace", "_asdict", "_fields"}  # Hydra's keys, named tuples
LAUNCHER = "_SubprocessScriptLauncher"
LIBRARIES = (
    "lightning|torchmetrics|hydra|torch|transformers|deepspeed|wandb|omegaconf|threading|atexit"
)


def trainer(**options: object) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", **quiet, **options)  # type: ignore[arg-type]


def test_products_of_onednn() -> None:
    left, right, bias = (torch.randn(*size) for size in ((70, 300), (50, 300), (50,)))
    exact = left.double() @ right.double().T
    for found, wanted in (
        (compat.onednn_product(left, right), exact),
        (compat.onednn_product(left, right, bias), exact + bias),
        (compat.onednn_product(right.T, right.T), right.double().T @ right.double()),
    ):
        assert found.dtype == torch.float32
        assert float((found - wanted).abs().max()) < 1e-4


def test_what_no_encoder_needs_is_loaded_when_it_is_asked_for() -> None:
    """In a process of its own: classes stay the same, and no model is missing."""
    code = """
import sys
from inbatch.compat import (
    load_dynamo_when_needed, load_flop_counter_when_needed, load_part_of_scipy_optimize,
    load_part_of_torchmetrics, read_models_once
)
load_dynamo_when_needed()  # which would load triton
load_flop_counter_when_needed()
load_part_of_torchmetrics()
load_part_of_scipy_optimize()
read_models_once()
import lightning.pytorch
import torchmetrics
import transformers
from transformers.models.bert.modeling_bert import BertModel
from transformers.utils import import_utils
part = sys.modules["scipy.optimize"]
print(type(part).__name__, import_utils.create_import_structure_from_path.cache_info().maxsize)
late = ("torchmetrics.functional", "scipy.signal", "matplotlib", "triton")
print(*(name in sys.modules for name in late))

first = torchmetrics.Metric
mean = torchmetrics.MeanMetric()
print(isinstance(mean, first), torchmetrics.Metric is first, torchmetrics.__version__ > "1")
mean.update(2.0)
figure, _ = mean.plot()
print(isinstance(figure, sys.modules["matplotlib.figure"].Figure))
try:
    torchmetrics.no_such_name
except AttributeError as error:
    print(error)

print(part.linear_sum_assignment([[2.0, 1.0], [1.0, 3.0]])[1].tolist(), type(part).__name__)
import scipy.optimize._minimize
from scipy.optimize import minimize
print(transformers.BertModel is BertModel, len({*transformers.__all__}))

import torch
from lightning.pytorch.utilities.model_summary.model_summary import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    torch.ones(2, 3) @ torch.ones(3, 4)
print(counter.get_total_flops(), type(counter) is torch.utils.flop_counter.FlopCounterMode)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "PartOfPackage None",
        "False False False False",
        "True True True",
        "True",
        "module 'torchmetrics' has no attribute 'no_such_name'",
        "[1, 0] module",
        f"True {len({*transformers.__all__})}",  # as without these parts
        "48 True",
    ], done.stderr


def test_torchs_compiler_is_loaded_when_it_is_needed() -> None:
    """In a process of its own: a training step does without, and what it has marked is known later."""
    code = """
import sys
import torch
from inbatch.compat import load_dynamo_when_needed, load_part_of_torchmetrics
load_dynamo_when_needed()
load_part_of_torchmetrics()
import lightning.pytorch
from lightning.fabric.wrappers import OptimizedModule
import transformers.models.bert.modeling_bert
part = sys.modules["torch._dynamo"]
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.zero_grad()
torch.use_deterministic_algorithms(False)
from accelerate.utils.other import is_compiled_module
assert not is_compiled_module(model)
marked = torch._dynamo.allow_in_graph(lambda x: x)
hidden = torch.compiler.disable(lambda x: x + torch._dynamo.is_compiling())
print(isinstance(model, OptimizedModule), type(part).__name__)
print("torch._dynamo.symbolic_convert" in sys.modules)

import torch._dynamo.config
import torch._dynamo.utils
assert sys.modules["torch._dynamo"] is part is torch._dynamo
assert torch._dynamo.config is sys.modules["torch._dynamo.config"]
compiled = torch.compile(model, backend="eager", fullgraph=True)
assert is_compiled_module(compiled)
torch.use_deterministic_algorithms(True, warn_only=True)
assert torch._inductor.config.deterministic
assert torch.is_deterministic_algorithms_warn_only_enabled()
torch.use_deterministic_algorithms(False)
assert not torch._inductor.config.deterministic
print(isinstance(compiled, OptimizedModule), type(part).__name__)
from torch._dynamo import trace_rules
print(id(marked) in trace_rules._allowed_callable_ids.function_ids)
outer = torch.compile(lambda x: hidden(x) * 2, backend="eager")
print(torch.equal(compiled(torch.ones(1, 2)), model(torch.ones(1, 2))), float(outer(torch.ones(()))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "False PartOfPackage",
        "False",
        "True module",
        "True",
        "True 2.0",
    ], done.stderr


def test_names_of_models_are_found_as_transformers_finds_them() -> None:
    from transformers.utils.import_utils import fetch__all__

    found = from_last_line(fetch__all__)
    files = list(Path(transformers.__file__).parent.glob("models/*/*.py"))
    assert len(files) > 1000
    for text in (*(file.read_text() for file in files), "x = 1", "__all__ = ['a']", "a.__all__"):
        assert found(text) == fetch__all__(text)


def test_a_trainer_handles_no_signals() -> None:
    made = trainer(devices=1)
    connector, loop = made._signal_connector, made.fit_loop.epoch_loop
    assert callable(connector.register_signal_handlers)
    assert callable(loop._broadcast_sigterm_tensor)
    compat.leave_signals_alone(made)
    assert connector.register_signal_handlers() is None
    assert loop._broadcast_sigterm_tensor() is None


def test_ranks_that_lightning_starts_are_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.strategies.launchers import subprocess_script as of_fabric
    from lightning.pytorch.strategies.launchers import subprocess_script as of_trainer

    for module in (of_fabric, of_trainer):
        name = "_launch_process_observer"
        monkeypatch.setattr(module, name, getattr(module, name))
        calls = inspect.getsource(vars(module)[LAUNCHER].launch)
        assert f"{name}(self.procs)" in calls
    seen: list[object] = []
    compat.observe_ranks(seen.extend)
    of_fabric._launch_process_observer(["a rank"])  # type: ignore[list-item]
    of_trainer._launch_process_observer(["another"])  # type: ignore[list-item]
    assert seen == ["a rank", "another"]


def test_what_a_wandb_logger_was_asked_for(tmp_path: Path) -> None:
    logger = WandbLogger(offline=True, log_model=False, save_dir=tmp_path, anonymous=True)
    assert compat.is_offline(logger)
    assert not compat.sends_model(logger)
    assert compat.sends_model(WandbLogger(log_model=True, save_dir=tmp_path))
    assert "anonymous" in logger._wandb_init
    compat.drop_anonymous(logger)
    assert "anonymous" not in logger._wandb_init


def test_hydras_options() -> None:
    assert {"--config-name", "-cn", "--config-dir", "--cfg"} <= {*compat.hydra_options_with_value()}
    assert "--multirun" not in compat.hydra_options_with_value()
    assert compat.hydra_parser().parse_args(["a=1", "-m"]).overrides == ["a=1"]


def test_hydras_defaults_with_interpolations(tmp_path: Path) -> None:
    """What is left out where no name has one."""
    for name, text in {
        "main": "defaults: [size: small, speed: '${size}', _self_]",
        "size/small": "number: 1",
        "speed/small": "number: 2",
        "speed/large": "number: 3",
        "size/large": "number: 4",
    }.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    with (
        compat.hydra_files_edited(lambda config, file, **others: config),
        initialize_config_dir(str(tmp_path), version_base="1.3"),
    ):
        found = [compose("main", overrides=o) for o in ([], ["size=large"])]
    assert found == [
        {"size": {"number": 1}, "speed": {"number": 2}},
        {"size": {"number": 4}, "speed": {"number": 3}},
    ]


def test_hydras_launcher() -> None:
    launcher = compat.serial_launcher()
    assert callable(launcher.setup)
    assert callable(launcher.launch)


def test_hydras_trials() -> None:
    overrides = OverridesParser.create().parse_overrides(["a=1,2", "b=x", "c=choice(y,z)"])
    assert compat.trials_of(overrides) == [
        [f"a={a}", "b=x", f"c={c}"] for a in (1, 2) for c in ("y", "z")
    ]
    with pytest.raises(HydraException, match="does not support"):
        compat.trials_of(OverridesParser.create().parse_overrides(["a=interval(0,1)"]))


def test_hydra_takes_what_it_is_given_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text("defaults:\n  - part: one\n  - _self_\nkept: 1\n")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "one.yaml").write_text("dropped: 1\n")
    seen = []

    def edit(config, file, *, files, overrides):  # type: ignore[no-untyped-def]
        seen.append((file.config_path, len(files), overrides))
        return OmegaConf.create({"part": {"new": 2}}) if file.parent == "main" else config

    with compat.hydra_files_edited(edit), initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("main", overrides=["kept=3"])
    assert config == {"part": {"new": 2}, "kept": 3}
    assert [entry for entry in seen if not entry[0].startswith("hydra")] == [
        ("part/one", seen[0][1], ["kept=3"]),
        ("main", seen[0][1], ["kept=3"]),
    ]
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("main") == {"part": {"dropped": 1}, "kept": 1}


def test_fp16_unscales_before_the_step() -> None:
    from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling

    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(2))], fused=True)
    assert _optimizer_handles_unscaling(optimizer)
    compat.unscale_before_step(optimizer)
    assert not _optimizer_handles_unscaling(optimizer)


def test_writes_to_a_tensor_are_counted() -> None:
    tensor = torch.ones(2)
    before = compat.num_writes(tensor)
    tensor.add_(1)
    assert compat.num_writes(tensor) > before
    before = compat.num_writes(tensor)
    _ = tensor + 1
    assert compat.num_writes(tensor) == before


def test_compiled_graphs_are_whole_and_counted() -> None:
    import torch._dynamo

    default = torch._dynamo.config.optimize_ddp
    try:
        compat.keep_graphs_whole()
        assert torch._dynamo.config.optimize_ddp is False
    finally:
        torch._dynamo.config.optimize_ddp = default
    before = compat.num_compiled_graphs()
    torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(2))
    assert compat.num_compiled_graphs() == before + 1


def test_the_attention_kernel_takes_what_it_is_given() -> None:
    """Its schema; `tests/encoder/test_packing_gpu.py` runs it."""
    schema = torch.ops.aten._flash_attention_forward.default._schema
    names = [argument.name for argument in schema.arguments]
    assert names[:9] == [
        *("query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k"),
        *("dropout_p", "is_causal"),
    ]
    assert {"scale", "window_size_left", "window_size_right"} <= {*names}


def test_the_attention_of_a_model() -> None:
    small = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    model = BertModel(BertConfig(**small, intermediate_size=8, vocab_size=10))
    model.set_attn_implementation("eager")
    assert compat.attention_name(model) == "eager"


def test_a_model_is_saved_without_deepspeed(tmp_path: Path) -> None:
    code = f"""
import sys
from transformers import BertConfig, BertModel
from inbatch.compat import saving_without_deepspeed
sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
with saving_without_deepspeed():
    BertModel(BertConfig(vocab_size=9, **sizes)).save_pretrained({str(tmp_path)!r})
assert "deepspeed" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.safetensors").exists()


def test_deepspeed_compiles_no_collectives() -> None:
    deepspeed = pytest.importorskip("deepspeed")
    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
    compat.switch_off_shared_memory_collectives()
    assert deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] is False


def test_deepspeed_compiles_no_muon() -> None:
    """In a process of its own, in which torch's compiler is not loaded yet."""
    pytest.importorskip("deepspeed")
    code = """
import sys
from inbatch import compat
from inbatch.compat.transformers import from_last_line
compat.leave_muon_uncompiled()
from deepspeed.runtime import compiler
from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
print("torch._inductor.scheduler" in sys.modules, compiler.compile.__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "False deepspeed.runtime.compiler", done.stderr


def private_names(path: Path) -> list[str]:
    """Private names that a file takes from something that is not its own object."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            outside = not node.module.startswith(("inbatch", "__future__"))
            found += [f"{node.module}: {name}" for name in names if private(name) and outside]
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if any(map(private, a.name.split(".")))]
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in OURS:
            whose = ast.unparse(node.value)
            if whose not in ("self", "cls", "other") and re.match(
                rf"({LIBRARIES})\b|\w*(trainer|logger|optimizer|model|backbone|parser|config)\b",
                whose,
            ):
                found.append(f"{whose}.{node.attr}")
    return found


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_other_file_uses_a_private_name_of_a_library() -> None:
    found = {
        str(path.relative_to(SRC)): private_names(path)
        for path in SRC.rglob("*.py")
        if path.parent.name != "compat"
    }
    assert {path: names for path, names in found.items() if names} == {}
    assert private_names(SRC / "inbatch" / "compat" / "models.py")
