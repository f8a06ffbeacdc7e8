"""Suggests losses, a sampler and a batch size for data, each in one line with its reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from inbatch.data.inspection.values import Advice, SamplerFacts
from inbatch.data.report.unused import looks_like_label
from inbatch.data.report.values import LabelReport, SourceReport

LEAST_STEPS = 100  # of an epoch, below which a larger batch leaves too few
LARGEST_BATCH = 65_536
FALSE_SHARE = 0.01  # of the rows that have a known false negative, from which it is worth a word
SKIPPED_SHARE = 0.02
UNEVEN = 10  # times the rows of the smallest source
_CLASSES = ("premise", "hypothesis")


def advise(
    reports: Sequence[SourceReport],
    samplers: Sequence[SamplerFacts],
    *,
    guided: Collection[str],
    global_batch_size: int,
) -> tuple[Advice, ...]:
    """Advice on all sources of a run.

    Args:
        reports: of them.
        samplers: the batches that samplers make of them.
        guided: names of the sources whose configured loss takes a guide.
        global_batch_size: as configured.
    """
    advice = [_losses(reports, guided)]
    if len(reports) > 1:
        advice.append(_mixer(reports))
    elif _is_contrasted(reports[0]):
        advice.append(_sampler(reports[0], {fact.sampler: fact for fact in samplers}))
    elif len(reports[0].columns) == 1:
        reason = "puts several rows of a label into each batch, where the loss finds its triplets"
        advice.append(Advice("sampler", "sampler=group_by_label", reason))
    else:
        reason = "a loss on labels takes no other rows as negatives, so no row need wait"
        advice.append(Advice("sampler", "sampler=batch", reason))
    return (*advice, _batch(reports, global_batch_size))


def _losses(reports: Sequence[SourceReport], guided: Collection[str]) -> Advice:
    """The loss of each source, once where it is the same for all."""
    if all(_plain_pairs(report) for report in reports):
        negatives = any(len(report.columns) > 2 for report in reports)
        what = "rows with hard negatives" if negatives else "pairs"
        reason = f"for {what}; cached, so that a large batch fits"
        if {report.name for report in reports} <= {*guided}:
            reason = f"as configured, for {what}: its guide leaves out false negatives"
            return Advice("loss", "loss=cached_gist", reason)
        if any(_repeats(report) for report in reports):
            reason += "; or loss=cached_gist guide.model=MODEL, which leaves out false negatives"
        return Advice("loss", "loss=cached_multiple_negatives_ranking", reason)
    if len(reports) == 1:
        return _loss(reports[0], "loss")
    each = [_loss(report, f"+loss@loss.{report.name}") for report in reports]
    setting = " ".join(["~loss", *(advice.setting for advice in each)])
    reasons = [f"{report.name}: {advice.reason}" for report, advice in zip(reports, each)]
    return Advice("loss", setting, "; ".join(reasons))


def _mixer(reports: Sequence[SourceReport]) -> Advice:
    counts = {report.name: report.num_rows for report in reports}
    small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    ratio = counts[large] / counts[small]
    if ratio < UNEVEN:
        reason = "all rows of all sources, each once an epoch"
        return Advice("sampler", "sampler=proportional", reason)
    reason = (
        f"'{large}' has {ratio:,.0f} times the rows of '{small}', and would be nearly all of it"
    )
    return Advice("sampler", "sampler=temperature sampler.temperature=2", reason)


def _is_contrasted(report: SourceReport) -> bool:
    """Whether in-batch negatives suit the source."""
    label = report.label
    return label is None or label.num_distinct == 1 or _has_classes(report)


def _has_classes(report: SourceReport) -> bool:
    names = tuple(column.name.lower() for column in report.columns)
    return names == _CLASSES and report.label is not None


def _plain_pairs(report: SourceReport) -> bool:
    """Whether every row is a match, and no column without a role may say otherwise."""
    return report.label is None and not any(map(looks_like_label, report.ignored_columns))


def _loss(report: SourceReport, key: str) -> Advice:
    label = report.label
    if len(report.columns) == 1:
        reason = "single texts, of which those of one label belong together"
        return Advice("loss", f"{key}=batch_hard_soft_margin_triplet", reason)
    if label is not None and label.num_distinct > 1:
        return _loss_on_labels(report, label, key)
    reason = "pairs that all match" if label is not None else "for in-batch negatives"
    maybe = [name for name in report.ignored_columns if looks_like_label(name)]
    if label is None and maybe:
        reason = (
            f"if all rows match; column '{maybe[0]}' may say which do: name it as columns.label"
        )
    return Advice("loss", f"{key}=multiple_negatives_ranking", reason)


def _loss_on_labels(report: SourceReport, label: LabelReport, key: str) -> Advice:
    values = {part.low for part in label.bins}
    if _has_classes(report) and values <= {0.0, 1.0, 2.0}:
        return Advice(
            "loss",
            f"{key}=multiple_negatives_ranking",
            f"for the entailed pairs alone: '{label.name}' holds classes, which no loss ranks",
        )
    if values == {0.0, 1.0} and label.num_distinct == 2:
        match = sum(part.count for part in label.bins if part.low == 1.0) / report.num_rows
        if match < 0.2:
            reason = f"labels 0 and 1, {match:.0%} of them 1: it looks at the hard pairs alone"
            return Advice("loss", f"{key}=online_contrastive", reason)
        reason = f"labels 0 and 1, {match:.0%} of them 1; compare {key}=online_contrastive"
        return Advice("loss", f"{key}=contrastive", reason)
    reason = f"graded labels from {label.min:g} to {label.max:g}, of which the order counts"
    if label.min >= -1 and label.max <= 1:
        reason += f"; {key}=cosine_similarity where the values are meant as cosines"
    return Advice("loss", f"{key}=cosent", reason)


def _repeats(report: SourceReport) -> bool:
    shares = (report.shared_queries, report.shared_positives)
    return any(share is not None and share.row_share >= FALSE_SHARE for share in shares)


def _sampler(report: SourceReport, samplers: Mapping[str, SamplerFacts]) -> Advice:
    plain, apart = samplers.get("batch"), samplers.get("no_duplicates")
    if report.key is not None:
        reason = f"keeps rows with the same '{report.key.name}' apart"
        return Advice("sampler", "sampler=no_duplicates", reason)
    if apart is not None and apart.num_skipped > SKIPPED_SHARE * report.num_rows:
        share = apart.num_skipped / report.num_rows
        reason = f"no_duplicates leaves {share:.0%} of the rows out; the loss masks them instead"
        return Advice("sampler", "sampler=batch loss.mask_duplicates=true", reason)
    if plain is None or plain.problem is not None or plain.false_negatives.batch_share == 0:
        reason = "costs nothing; at this batch size hardly a text would meet itself anyway"
    else:
        found = plain.false_negatives
        reason = (
            f"in {found.batch_share:.0%} of plain shuffled batches a query has a known positive "
            f"among its negatives ({found.row_share:.1%} of the rows)"
        )
    return Advice("sampler", "sampler=no_duplicates", reason)


def _batch(reports: Sequence[SourceReport], global_batch_size: int) -> Advice:
    rows = sum(report.num_rows for report in reports)
    now = f"{global_batch_size:,} gives {_steps(rows, global_batch_size)} an epoch"
    setting = f"global_batch_size={global_batch_size}"
    if not all(map(_is_contrasted, reports)):
        return Advice("batch", setting, f"as configured; {now}")
    largest = 1
    while 2 * largest <= min(LARGEST_BATCH, rows // LEAST_STEPS):
        largest *= 2
    if largest > global_batch_size:
        reason = f"more in-batch negatives; {_steps(rows, largest)} an epoch, where {now}"
        return Advice("batch", f"global_batch_size={largest}", reason)
    few = rows < LEAST_STEPS * global_batch_size
    more = ", which are few: train for several epochs" if few else ""
    return Advice("batch", setting, f"as configured; {now}{more}")


def _steps(rows: int, batch_size: int) -> str:
    steps = -(-rows // batch_size)
    return "1 step" if steps == 1 else f"{steps:,} steps"
