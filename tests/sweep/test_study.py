"""The search proposes what was asked for, and learns."""

from __future__ import annotations

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.inbatch_search import split_overrides
from inbatch.errors import ConfigError
from inbatch.export.metrics_log import Series
from inbatch.sweep.study import Choice, Span, Study, batches
from inbatch.sweep.trials import Mode, Result, Trial

SETTINGS = {"seed": 0, "startup_trials": 5}


def _trial(value: float, status: str = "completed") -> Trial:
    return Trial(number=0, overrides=(), status=status, result=Result(value=value))  # type: ignore[arg-type]


def test_what_the_command_line_asks_for() -> None:
    overrides = OverridesParser.create().parse_overrides(
        [
            "++optimizer.lr=tag(log, interval(1e-5, 1e-3))",
            "loss=multiple_negatives_ranking,cosent",
            "++accumulate=range(2,9,3)",
            "++a=int(interval(1,4))",
            "++clip_norm=null,1.0",
            "++seed=7",
            "sampler=batch",
        ]
    )
    space, fixed = split_overrides(overrides)
    assert space == {
        "++optimizer.lr": Span(1e-5, 1e-3, log=True),
        "loss": Choice(("multiple_negatives_ranking", "cosent")),
        "++accumulate": Span(2, 8, step=3, whole=True),
        "++a": Span(1, 4, whole=True),
        "++clip_norm": Choice(("null", "1.0")),
    }
    assert fixed == ["++seed=7", "sampler=batch"]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_learns(mode: Mode) -> None:
    pytest.importorskip("optuna")
    sign = 1.0 if mode == "max" else -1.0
    study = Study(
        {"x": Span(0.0, 10.0), "y": Choice(("a", "b"))}, mode=mode, kind="tpe", **SETTINGS
    )
    tried = []
    for _ in range(40):
        ((proposal, values),) = study.ask(1)
        x = float(values["x"])
        value = -((x - 7.0) ** 2) - (values["y"] == "b")
        tried.append(value)
        study.tell(proposal, _trial(sign * value), Series([], []))
    assert sum(tried[-20:]) / 20 > -6  # without learning: about -13
    assert max(tried) > -0.5


def test_same_seed_proposes_the_same() -> None:
    pytest.importorskip("optuna")
    space = {"x": Span(1e-5, 1e-1, log=True), "n": Span(1, 9, whole=True)}
    asked = [
        [values for _, values in Study(space, mode="max", kind="random", **SETTINGS).ask(4)]
        for _ in range(2)
    ]
    assert asked[0] == asked[1]
    assert all(1e-5 <= float(v["x"]) <= 1e-1 and 1 <= int(v["n"]) <= 9 for v in asked[0])


def test_failed_and_pruned_trials_are_told() -> None:
    optuna = pytest.importorskip("optuna")
    study = Study({"x": Span(0.0, 1.0)}, mode="max", kind="tpe", **SETTINGS)
    proposals = [proposal for proposal, _ in study.ask(4)]
    study.tell(proposals[0], None, Series([], []))
    study.tell(proposals[1], _trial(0.5, "failed"), Series([], []))
    study.tell(proposals[2], _trial(0.4, "pruned"), Series([2, 4], [0.1, 0.4]))
    study.tell(proposals[3], _trial(0.5), Series([], []))
    told = study._study.trials
    states = [proposal.state.name for proposal in told]
    assert states == ["FAIL", "FAIL", "PRUNED", "COMPLETE"]
    assert told[2].intermediate_values == {2: 0.1, 4: 0.4}
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING


def test_batches() -> None:
    assert batches(7, 3) == [3, 3, 1]


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        Study({}, mode="max", kind="tpe", **SETTINGS)
    with pytest.raises(ConfigError, match="sampler='grid'"):
        Study({"x": Choice(("a",))}, mode="max", kind="grid", **SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="smaller one first"):
        Span(2.0, 1.0)
    with pytest.raises(ConfigError, match="above 0 for a logarithm"):
        Span(0.0, 1.0, log=True)


def test_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'inbatch\[sweep\]'"):
        Study({"x": Choice(("a",))}, mode="max", kind="tpe", **SETTINGS)
