"""Curves: which files appear, and that they show something."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.image import imread

from inbatch.export.evaluation_plot import by_set, evaluation_figure, families
from inbatch.export.plots import _loss, plot_run, smooth

ALL = ["loss", "learning_rate", "gradient_norm", "throughput", "evaluation", "similarity"]


def _rows(num_steps: int = 12) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"step": 0, "eval/dev_cosine_accuracy": 0.5}]
    for step in range(1, num_steps + 1):
        rows.append(
            {
                "step": step,
                "train/loss": math.exp(-step),
                "train/lr": 1e-5 * step,
                "train/gradient_norm": 1.0 + step % 3,
                "train/positive_similarity": 0.5 + step / 100,
                "train/hardest_negative_similarity": 0.5 - step / 100,
                "train/filtered_share": 0.1,
                "perf/samples_per_s": 100.0 + step,
                "perf/tokens_per_s": 4000.0,
            }
        )
        if step % 4 == 0:
            rows.append({"step": step, "eval/dev_cosine_accuracy": 0.5 + step / 100})
    return rows


def _assert_png(path: Path) -> None:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    assert min(width, height) >= 600
    pixels = imread(path)
    assert (pixels[..., :3].min(axis=-1) < 0.99).mean() > 0.005  # something is drawn on the white


def test_every_plot_is_written(tmp_path: Path) -> None:
    paths = plot_run(_rows(), tmp_path / "plots")
    assert paths == [tmp_path / "plots" / f"{name}.png" for name in ALL]
    for path in paths:
        _assert_png(path)


@pytest.mark.parametrize(
    ("prefixes", "name"),
    [
        (("train/loss",), "loss"),
        (("train/lr",), "learning_rate"),
        (("train/gradient_norm",), "gradient_norm"),
        (("perf/tokens",), "throughput"),
        (("eval/",), "evaluation"),
        (("train/positive", "train/hardest"), "similarity"),
        (("train/filtered",), "similarity"),
    ],
)
def test_plots_without_their_series_are_not_there(
    prefixes: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    rows = [{k: v for k, v in row.items() if k.startswith(("step", *prefixes))} for row in _rows(4)]
    plot_run(rows, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert plot_run([], tmp_path / "plots") == []
    assert plot_run([{"step": 1, "train/loss": None}], tmp_path / "plots") == []
    assert not (tmp_path / "plots").exists()


def test_one_row_is_enough(tmp_path: Path) -> None:
    row = {**_rows(1)[-1], "eval/dev_map": 0.0, "train/gradient_norm": 0.0, "perf/tokens_per_s": 0}
    for path in plot_run([row], tmp_path):
        _assert_png(path)


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    odd = ["$\\frac{$", "_hidden", "의료 용품", "a<b>"]
    rows = [
        {"step": i, "train/loss": 1.0, **{f"train/loss/{n}": 1.0 / i for n in odd}} for i in (1, 2)
    ]
    rows += [{"step": 2, **{f"eval/{n}": 0.5 for n in odd}}]
    assert [path.stem for path in plot_run(rows, tmp_path)] == ["loss", "evaluation"]


def test_wide_range_is_drawn_on_a_logarithmic_axis_with_plain_labels() -> None:
    wide = _loss([{"step": step, "train/loss": 10.0**-step} for step in range(4)])
    narrow = _loss([{"step": step, "train/loss": 1.0 + step} for step in range(4)])
    assert wide is not None
    assert narrow is not None
    assert [figure.axes[0].get_yscale() for figure in (wide, narrow)] == ["log", "linear"]
    wide.canvas.draw()
    assert {"0.001", "0.1"} <= {text.get_text() for text in wide.axes[0].get_yticklabels()}


def test_best_value_is_marked_where_better_is_known() -> None:
    rows = [
        {
            "step": step,
            "eval/dev_map": value,
            "eval/dev_loss": value,
            "eval/dev_f1_threshold": value,
        }
        for step, value in ((0, 0.4), (10, 0.9), (20, 0.2), (30, 0.6))
    ]
    figure = evaluation_figure(rows)
    assert figure is not None
    marked = {axes.get_title(): [t.xy for t in axes.texts] for axes in figure.axes}
    assert marked == {"dev_map": [(10, 0.9)], "dev_loss": [(20, 0.2)], "dev_f1_threshold": []}


def test_the_saved_model_is_marked_where_several_steps_are_best() -> None:
    rows = [
        {"step": step, "eval/dev_map": value, "eval/dev_mrr": value}
        for step, value in ((0, 0.9), (4, 0.9), (8, 0.9))
    ]
    figure = evaluation_figure(rows, best_steps={"dev_map": 4})
    assert figure is not None
    marked = {axes.get_title(): [t.xy for t in axes.texts] for axes in figure.axes}
    assert marked == {"dev_map": [(4, 0.9)], "dev_mrr": [(0, 0.9)]}


def _retrieval(name: str) -> list[str]:
    return [f"{name}_cosine_{m}@{k}" for m in ("accuracy", "recall", "ndcg") for k in (1, 3, 5, 10)]


def test_of_many_metrics_few_are_large_and_the_rest_small_by_set(tmp_path: Path) -> None:
    keys = _retrieval("shop") + _retrieval("shop_fr") + ["sts_spearman_cosine"]
    rows = [{"step": s, **{f"eval/{key}": s / 30 for key in keys}} for s in (0, 10, 20)]
    primary = {"shop": "shop_cosine_ndcg@10", "shop_fr": "shop_fr_cosine_ndcg@10"}
    primary["sts"] = "sts_spearman_cosine"
    figure = evaluation_figure(rows, primary=primary)
    assert figure is not None
    large, *small = figure.subfigs
    assert [axes.get_title() for axes in large.axes] == list(primary.values())
    assert [part.get_suptitle() for part in small] == ["shop", "shop_fr", "sts"]
    assert [axes.get_title() for axes in small[0].axes] == ["accuracy", "recall", "ndcg"]
    lines = [line.get_label() for line in small[1].axes[0].lines]
    assert lines == ["cosine @1", "cosine @3", "cosine @5", "cosine @10"]
    assert sum(len(axes.lines) for part in small for axes in part.axes) == len(keys)
    (path,) = plot_run(rows, tmp_path, primary=primary)
    _assert_png(path)


def test_families_and_sets_of_metrics() -> None:
    sets = by_set(["a_b_recall@1", "a_recall@1", "recall@1"], {"a": "", "a_b": ""})
    assert sets == {"a_b": ["a_b_recall@1"], "a": ["a_recall@1"], "": ["recall@1"]}
    found = families(
        ["pearson_cosine", "spearman_cosine", "pearson_max", "cosine_f1_threshold"], ""
    )
    assert {family.title: list(family.curves) for family in found} == {
        "pearson": ["cosine", "max"],
        "spearman": ["cosine"],
        "f1_threshold": ["cosine"],
    }


def test_global_style_is_left_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    plot_run([{"step": 1, "train/loss": 0.5}], tmp_path)
    assert dict(mpl.rcParams) == before


def test_smoothing_keeps_constants_lines_and_short_series() -> None:
    assert smooth([2.0] * 50, span=5.0) == pytest.approx([2.0] * 50)
    assert smooth([1.0, 3.0], span=0.1) == [1.0, 3.0]
    assert smooth([], span=3.0) == []
    line = [float(i) for i in range(101)]
    assert smooth(line, span=4.0)[50] == pytest.approx(50.0)  # no lag
    noisy = [float(i % 2) for i in range(100)]
    assert max(abs(value - 0.5) for value in smooth(noisy, span=10.0)[10:-10]) < 0.05
