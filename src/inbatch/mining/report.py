"""What was mined, for people and for programs: `report.md` and `report.json`.

Shape letters: q queries, M negatives, P positives, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inbatch.mining.blocks import Block
from inbatch.mining.filters import REASONS
from inbatch.mining.rows import Mined, RowForm, join_blocks
from inbatch.mining.training_set import TrainingSet

_EXAMPLES = 10
_BINS = 20
_BAR = 40  # characters
_QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "max": 1.0}


def make_report(
    training: TrainingSet,
    blocks: Sequence[Block],
    form: RowForm,
    *,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """All that is reported, as plain values.

    Args:
        training: what the rows are.
        blocks: of all queries.
        form: in which the rows were written.
        settings: of the command.
    """
    model = join_blocks(blocks, "model")
    counts_q = model.negatives.lengths
    counts_R = counts_q[training.query_of_row]
    kept_R = counts_R >= form.min_negatives
    by_reason = np.sum([block.left_out for block in blocks], axis=0)
    report = {
        "rows": {
            "read": len(counts_R),
            "written": int(kept_R.sum()),
            "left_out": int((~kept_R).sum()),
            "without_negatives": int((counts_R == 0).sum()),
            "with_fewer_negatives": int((counts_R < form.num_negatives).sum()),
        },
        "queries": len(counts_q),
        "documents": len(training.documents),
        "negatives": int(counts_q.sum()),
        "queries_by_number_of_negatives": np.bincount(
            counts_q, minlength=form.num_negatives + 1
        ).tolist(),
        "candidates": {
            "looked_at": int(sum(int(block.num_candidates[0]) for block in blocks)),
            "left_out": dict(zip(REASONS, by_reason.tolist())),
        },
        "scores": _of_scores(training, model),
        "settings": dict(settings),
        "examples": _examples(training, model),
    }
    if any(len(block.positive_guide) for block in blocks):
        report["guide_scores"] = _of_scores(training, join_blocks(blocks, "guide"))
    return report


def _of_scores(training: TrainingSet, mined: Mined) -> dict[str, Any]:
    """Statistics and a histogram of positives, negatives, and the lowest positive less each negative."""
    lowest_q = np.minimum.reduceat(mined.positive_scores, training.positives.offsets[:-1])
    difference = np.repeat(lowest_q, mined.negatives.lengths) - mined.scores
    both = np.concatenate([mined.positive_scores, mined.scores])
    edges = np.linspace(
        np.floor(both.min() * 20) / 20, np.ceil(both.max() * 20) / 20 + 1e-9, _BINS + 1
    )
    return {
        "positives": _statistics(mined.positive_scores),
        "negatives": _statistics(mined.scores),
        "difference": _statistics(difference),
        "histogram": {
            "edges": [round(float(edge), 4) for edge in edges],
            "positives": np.histogram(mined.positive_scores, edges)[0].tolist(),
            "negatives": np.histogram(mined.scores, edges)[0].tolist(),
        },
    }


def _statistics(values: np.ndarray) -> dict[str, float | int | None]:
    if not len(values):
        return {"count": 0, **dict.fromkeys(("mean", "std", *_QUANTILES))}
    values = values.astype(np.float64)
    quantiles = dict(zip(_QUANTILES, np.quantile(values, list(_QUANTILES.values())).tolist()))
    return {
        "count": len(values),
        "mean": float(values.mean()),
        "std": float(values.std()),
        **quantiles,
    }


def _examples(training: TrainingSet, mined: Mined) -> list[dict[str, Any]]:
    """Some queries, those with the smallest hashes: the same ones whatever the settings."""
    found = []
    for query in np.argsort(training.queries.hashes)[:_EXAMPLES].tolist():
        of = np.s_[training.positives.offsets[query] : training.positives.offsets[query + 1]]
        neg = np.s_[mined.negatives.offsets[query] : mined.negatives.offsets[query + 1]]
        (text,) = training.queries.take(np.array([query]))
        found.append(
            {
                "query": text,
                "positives": _scored(
                    training, training.positives.values[of], mined.positive_scores[of]
                ),
                "negatives": _scored(training, mined.negatives.values[neg], mined.scores[neg]),
            }
        )
    return found


def _scored(training: TrainingSet, numbers: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    texts = training.documents.take(numbers)
    return [{"text": t, "score": round(float(s), 4)} for t, s in zip(texts, scores)]


def report_text(report: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    rows = report["rows"]
    lines = [
        "# Mined negatives",
        "",
        f"{rows['read']:,} rows with {report['queries']:,} queries; {report['documents']:,} documents. "
        f"{report['negatives']:,} negatives, {rows['written']:,} rows written, {rows['left_out']:,} left out "
        f"for want of negatives, {rows['without_negatives']:,} without any.",
        "",
        "| negatives | queries |",
        "|---|---|",
        *(f"| {n} | {q:,} |" for n, q in enumerate(report["queries_by_number_of_negatives"])),
        "",
        f"## Candidates\n\n{report['candidates']['looked_at']:,} looked at; each counts for the first reason "
        "that leaves it out.",
        "",
        "| left out | candidates |",
        "|---|---|",
        *(
            f"| {name}: {REASONS[name]} | {count:,} |"
            for name, count in report["candidates"]["left_out"].items()
            if count
        ),
        "",
    ]
    for key, title in (("scores", "Scores"), ("guide_scores", "Scores of the guide")):
        if key in report:
            lines += [f"## {title}", "", *_score_lines(report[key]), ""]
    lines += ["## Examples", ""]
    for example in report["examples"]:
        lines.append(f"- query: {_one_line(example['query'])}")
        for kind in ("positives", "negatives"):
            lines += [
                f"  - {kind[:-1]} {each['score']:.4f}: {_one_line(each['text'])}"
                for each in example[kind]
            ]
    return "\n".join(lines) + "\n"


def _score_lines(scores: Mapping[str, Any]) -> list[str]:
    kinds = ("positives", "negatives", "difference")
    lines = ["| | positives | negatives | positive less negative |", "|---|---|---|---|"]
    for name in ("count", "mean", "std", *_QUANTILES):
        cells = [scores[kind][name] for kind in kinds]
        lines.append(f"| {name} | " + " | ".join(map(_cell, cells)) + " |")
    bins = scores["histogram"]
    most = max(1, *bins["positives"], *bins["negatives"])
    lines += ["", "```", f"{'score':>15}  {'positives':<{_BAR // 2}}  negatives"]
    for number, (positives, negatives) in enumerate(zip(bins["positives"], bins["negatives"])):
        low, high = bins["edges"][number : number + 2]
        bars = [("#" * round(_BAR / 2 * count / most)) for count in (positives, negatives)]
        lines.append(f"{low:>6.2f} to {high:>5.2f}  {bars[0]:<{_BAR // 2}}  {bars[1]}".rstrip())
    return [*lines, "```"]


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _one_line(text: str) -> str:
    """A text on one line, cut to 200 characters, with nothing that Markdown reads."""
    line = " ".join(text.split())
    line = line if len(line) <= 200 else f"{line[:199]}…"
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in line)
