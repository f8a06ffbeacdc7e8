"""Mistakes in a configuration: one sentence that names the key, the value and the nearest right one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytest

from helpers.runs import compose_run
from inbatch.cli.overrides import complete_overrides
from inbatch.cli.train import CONF_DIR
from inbatch.config.check import check_config, check_precision, rows_per_rank
from inbatch.config.instantiate import instantiate
from inbatch.config.targets import errors_under
from inbatch.config.types import check_type
from inbatch.errors import ConfigError
from inbatch.losses.base import Loss

PAIRS = ("encoder=tiny", "data.train.pairs=x.csv")

UNKNOWN_KEYS = {
    "++globl_batch_size=8": "globl_batch_size is not a valid key of the configuration: "
    "did you mean 'global_batch_size'?",
    "++trainer.max_epoch=1": "trainer.max_epoch is not a valid key of trainer: did you mean 'max_epochs'?",
    "++data.loader.workers=2": "data.loader.workers is not a valid key of data.loader: "
    "did you mean 'num_workers'?",
    "++gradcache.chunk_siz=2": "gradcache.chunk_siz is not a valid key of gradcache: "
    "did you mean 'chunk_size'?",
    "++guide.store=x": "guide.store is not a valid key of guide: did you mean 'store_dir'?",
    "++loss.temprature=1": "loss.temprature is not a valid key of inbatch.losses.MultipleNegativesRanking: "
    "did you mean 'temperature'?",
    "++encoder.max_len=9": "encoder.max_len is not a valid key of inbatch.encoder.build_encoder: "
    "did you mean 'max_length'?",
    "++optimizer.learning_rate=1": "optimizer.learning_rate is not a valid key of inbatch.optim.adamw: "
    "use one of",
    "++schedule.warmup=1": "schedule.warmup is not a valid key of inbatch.optim.Linear: "
    "did you mean 'warmup_steps'?",
    "++sampler.blockrows=1": "sampler.blockrows is not a valid key of "
    "inbatch.data.plan.samplers.NoDuplicates: did you mean 'block_rows'?",
    "++data.train.pairs.colums=x": "data.train.pairs.colums is not a valid key: did you mean 'columns'",
    "++zzz=1": "zzz is not a valid key of the configuration: use one of accumulate",
}

WRONG_VALUES = {
    "seed=abc": "seed='abc' is not a whole number",
    "seed=-1": "seed=-1 is too small: set at least 0",
    "global_batch_size=1.5": "global_batch_size=1.5 is not a whole number",
    "global_batch_size=0": "global_batch_size=0 is too small: set at least 1",
    "accumulate=0": "accumulate=0 is too small",
    "precision=fp61": "precision='fp61' is not one of auto, fp32, tf32, bf16, fp16, bf16-true, fp64: "
    "did you mean 'fp64'?",
    "gather=all": "gather='all' is not one of global, ring, local: correct its value",
    "clip_norm=0": "clip_norm=0 is too small: set a number above 0",
    "drop_last=3": "drop_last=3 is not true or false",
    "compile=maybe": "compile='maybe' is not true or false",
    "card.tags=x": "card.tags='x' is not a list",
    "++learning_rate_mapping={bias: fast}": "learning_rate_mapping.bias='fast' is not a number",
    "+encoder.dense=64": "encoder.dense=64 is not a mapping {key: value, ...} or false: ",
    "trainer.max_steps=0": "trainer.max_steps=0 trains nothing: set at least 1, or -1 for no limit",
    "trainer.max_epochs=-1": "trainer.max_epochs=-1 and trainer.max_steps=-1 train without end",
    "trainer.devices=[0]": "trainer.devices=[0] is not a whole number or text",
    "trainer.accelerator=tpu": "trainer.accelerator='tpu' is not one of auto, cpu, cuda, gpu",
    "optimizer.lr=nan": "optimizer.lr=nan is out of range: set 0 or more",
    "optimizer.weight_decay=-0.1": "optimizer.weight_decay=-0.1 is out of range",
    "optimizer.eps=-1": "optimizer.eps=-1 is out of range",
    "optimizer.betas=[0.9,1]": "optimizer.betas=[0.9, 1] is out of range: set numbers from 0 to",
    "optimizer.betas=[0.9]": "optimizer.betas=[0.9] is not a pair of numbers: set both",
    "data.cache_dir=gs://a/b": "data.cache_dir='gs://a/b' is not a folder of this machine",
    "evaluation.mode=maximum": "evaluation.mode='maximum' is not one of max, min: did you mean 'max'?",
    "evaluation.best_metric=x": "evaluation.best_metric='x' has no evaluator to come from",
    "gradcache.chunk_tokens=0": "gradcache.chunk_tokens=0 is too small",
    "data.loader.prefetch=0": "data.loader.prefetch=0 is too small",
    "loss.temperature=warm": "loss.temperature='warm' is not a number",
    "loss.similarity=cosin": "loss.similarity='cosin' is not one of cosine, dot: did you mean 'cosine'?",
    "loss.directions=query_to_doc": "loss.directions='query_to_doc' is not a list",
    "optimizer.betas=[a]": "optimizer.betas[0]='a' is not a number",
    "++encoder.pooling=3": "encoder.pooling=3 is not text or a list",
    "encoder._target_=inbatch.encoder.bild": "encoder._target_='inbatch.encoder.bild' cannot be imported",
    "loss._target_=nowhere.Loss": "loss._target_='nowhere.Loss' cannot be imported",
    "data_dir=${nope}/x": "data_dir cannot be read (Interpolation key 'nope' not found): correct it",
}


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        check_config(compose_run(*overrides))
    return str(error.value)


@pytest.mark.parametrize("override", UNKNOWN_KEYS)
def test_an_unknown_key_is_named_with_the_nearest(override: str) -> None:
    message = refusal(*PAIRS, override)
    assert UNKNOWN_KEYS[override] in message
    assert "\n" not in message


@pytest.mark.parametrize("override", WRONG_VALUES)
def test_a_wrong_value_is_named(override: str) -> None:
    sources = () if override.startswith(("data.train", "data_dir")) else PAIRS
    message = refusal(*sources, override)
    assert WRONG_VALUES[override] in message
    assert "\n" not in message


def test_an_experiment_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nglobal_batchsize: 4\nloss:\n  temperature: 0.1\n"
    )
    searchpath = f"hydra.searchpath=[file://{tmp_path}]"
    assert "did you mean 'global_batch_size'?" in refusal(*PAIRS, "experiment=mine", searchpath)


def test_values_that_are_missing_are_listed() -> None:
    assert refusal().startswith("data.train and encoder.model are not set: ")


def test_an_evaluator_without_data_is_refused() -> None:
    message = refusal(*PAIRS, "evaluation=triplet")
    assert message == (
        "evaluation.evaluators.eval.path is not set: set data.eval=FILE, or evaluation=auto"
    )


def test_data_is_one_file_or_files_by_name() -> None:
    one = check_config(compose_run("encoder=tiny", "data.train=a.csv", "data.eval=b.csv"))
    assert one.data.train == {"train": {"path": "a.csv", "columns": None}}
    evaluator = {"_target_": "inbatch.evaluation.evaluator_for", "path": "b.csv", "name": "eval"}
    assert one.evaluation.evaluators == {"eval": {**evaluator, "columns": None}}
    roles = ["+data.columns.anchor=title", "+data.columns.key=id"]
    several = check_config(
        compose_run(
            "encoder=tiny",
            "data.train={a: [1.csv, 2.csv], b: {path: b.csv, columns: {anchor: name}}}",
            "data.eval={x: x.csv, y: y.csv}",
            *roles,
        )
    )
    assert several.data.train == {
        "a": {"path": ["1.csv", "2.csv"], "columns": {"anchor": "title", "key": "id"}},
        "b": {"path": "b.csv", "columns": {"anchor": "name", "key": "id"}},
    }
    assert list(several.evaluation.evaluators) == ["x", "y"]
    assert several.evaluation.evaluators["y"]["columns"] == {"anchor": "title", "key": "id"}


def test_chosen_evaluators_take_the_data() -> None:
    run = check_config(compose_run(*PAIRS, "data.eval=b.csv", "evaluation=triplet"))
    assert list(run.evaluation.evaluators) == ["eval"]
    assert run.evaluation.evaluators["eval"]["path"] == "b.csv"


def test_a_target_gets_what_it_needs() -> None:
    config = compose_run(*PAIRS, "evaluation=triplet")
    del config.evaluation.evaluators.eval.path
    with pytest.raises(
        ConfigError, match=r"eval.path is not set, and inbatch.evaluation.TripletEvaluator needs it"
    ):
        check_config(config)


@pytest.mark.parametrize(
    "group", ["encoder", "loss", "sampler", "optimizer", "schedule", "strategy"]
)
def test_a_group_without_a_target_is_refused(group: str) -> None:
    config = compose_run(*PAIRS)
    for empty in (None, {"lr": 1}):
        config[group] = empty
        with pytest.raises(
            ConfigError, match=f"{group}.* has no _target_: choose one of conf/{group}"
        ):
            check_config(config)


def test_a_loss_for_no_source_is_refused() -> None:
    config = compose_run(*PAIRS)
    config.loss = {"pair": {"_target_": "inbatch.losses.CoSENT"}}
    with pytest.raises(
        ConfigError, match=r"loss.pair is not a valid key of data.train: did you mean 'pairs'"
    ):
        check_config(config)


def test_a_group_of_keys_cannot_be_a_value() -> None:
    config = compose_run(*PAIRS)
    config.gradcache = 3
    with pytest.raises(ConfigError, match=r"gradcache=3 is not a group of keys: .*chunk_size"):
        check_config(config)


def test_a_whole_number_may_stand_for_a_number() -> None:
    run = check_config(compose_run(*PAIRS, "clip_norm=2", "gradcache=rows"))
    assert isinstance(run.clip_norm, float)
    assert run.gradcache.keep_gib == 0


def test_steps_may_be_the_only_limit() -> None:
    run = check_config(compose_run(*PAIRS, "trainer.max_epochs=-1", "trainer.max_steps=7"))
    assert run.trainer.max_steps == 7


@pytest.mark.parametrize(
    ("global_batch_size", "world_size", "hint"),
    [(10, 4, "set 8 or 12"), (3, 4, "set 4"), (1001, 8, "set 1000 or 1008")],
)
def test_a_global_batch_that_does_not_divide_names_the_nearest(
    global_batch_size: int, world_size: int, hint: str
) -> None:
    with pytest.raises(ConfigError, match=rf"global_batch_size={global_batch_size} .* {hint}$"):
        rows_per_rank(global_batch_size, world_size)


def test_a_global_batch_that_divides() -> None:
    assert rows_per_rank(12, 4) == 3


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_some_precisions_need_a_gpu(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"precision='{precision}' needs a GPU"):
        check_precision(precision, "cpu")
    check_precision(precision, "cuda")
    check_precision("bf16", "cpu")


@pytest.mark.parametrize(
    ("value", "hint", "fit"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1, float, True),
        (True, float, False),
        ("1", float, False),
        (None, float | None, True),
        (None, float, False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (True, Literal[False], False),
        (["a"], Sequence[str], True),
        ("a", Sequence[str], False),
        (["a", 1], Sequence[str], False),
        ([1.0, 2.0], tuple[float, float], True),
        ([1.0], tuple[float, float], False),
        ([1.0], tuple[float, ...], True),
        ({"a": 1}, Mapping[str, int], True),
        ({"a": "b"}, Mapping[str, int], False),
        ([], Mapping[str, int], False),
        ("x", Any, True),
        ("x", Loss, False),
        ({"_target_": "x"}, Loss, True),
        ("x", Callable[..., Any], False),
        ("x", str | Path, True),
    ],
)
def test_what_fits_an_annotation(value: Any, hint: Any, fit: bool) -> None:
    with nullcontext() if fit else pytest.raises(ConfigError, match=r"^some\.key.* is not "):
        check_type(value, hint, "some.key")


@pytest.mark.parametrize(
    ("argument", "completed"),
    [
        ("seed=1", "++seed=1"),
        ("encoder.max_length=9", "++encoder.max_length=9"),
        ("data.train.mine.path=a=b.csv", "++data.train.mine.path='a=b.csv'"),
        ("loss=gist", "loss=gist"),
        ("loss@loss.pairs=mnrl", "loss@loss.pairs=mnrl"),
        ("+seed=1", "+seed=1"),
        ("~seed", "~seed"),
        ("hydra.run.dir=x", "hydra.run.dir=x"),
        ("hydra/launcher=basic", "hydra/launcher=basic"),
        ("--config-dir=x", "--config-dir=x"),
        ("-m", "-m"),
    ],
)
def test_plain_overrides_reach_keys_that_no_yaml_has(argument: str, completed: str) -> None:
    assert complete_overrides([argument], Path(CONF_DIR)) == [completed]


@pytest.mark.parametrize("argument", ["loss=null", "loss={temperature: 1}"])
def test_a_group_takes_a_file(argument: str) -> None:
    with pytest.raises(
        ConfigError, match=r"is not the name of a file: set loss= one of angle, .*triplet"
    ):
        complete_overrides([argument], Path(CONF_DIR))


def test_a_source_without_a_name_is_reported_as_the_user_wrote_it() -> None:
    config = compose_run("encoder=tiny", "data.train={path: x.csv, colums: y}")
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert str(error.value).startswith("data.train")
    assert "data.train.train" not in str(error.value)


def test_an_error_of_an_argument_is_reported_under_its_node() -> None:
    node = {"_target_": "inbatch.optim.optimizers.adamw", "lr": 1, "eps": 1, "weight_decay": 0}
    with pytest.raises(ConfigError, match=r"^optimizer.betas=\[0.9\] is not a pair") as error:
        instantiate({**node, "params": [], "betas": [0.9]}, key="optimizer")
    assert error.value.key == "optimizer.betas"


def test_an_error_of_something_else_keeps_its_key() -> None:
    with pytest.raises(ConfigError) as error, errors_under("loss", ["temperature"]):
        raise ConfigError("data.train", "is empty", "name a file")
    assert error.value.key == "data.train"


def test_a_key_inside_an_argument_is_reported_under_the_node() -> None:
    with pytest.raises(ConfigError) as error, errors_under("encoder", ["dense"]):
        raise ConfigError("dense.out_features", "is not a whole number", "set one", value="x")
    assert str(error.value).startswith("encoder.dense.out_features='x' is not")
