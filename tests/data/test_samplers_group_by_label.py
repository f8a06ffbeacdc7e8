"""What GroupByLabel promises of its batches, beside what tests/data/test_plan.py asks of every sampler."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest

from inbatch.data.plan.plan import Plan, SourceInfo, StreamInfo
from inbatch.data.plan.samplers import GroupByLabel, Proportional
from inbatch.data.plan.samplers.group_by_label import num_lone_labels
from inbatch.errors import ConfigError


def labelled(labels: np.ndarray, name: str = "a", **options: object) -> SourceInfo:
    return SourceInfo(name, len(labels), labels=partial(np.asarray, labels), **options)  # type: ignore[arg-type]


def plan_of(
    labels: np.ndarray, batch: int, *, group: int = 2, epoch: int = 0, **options: bool
) -> Plan:
    return GroupByLabel(rows_per_label=group).plan(
        [labelled(labels)],
        global_batch_size=batch,
        seed=1,
        epoch=epoch,
        drop_last=options.get("drop_last", True),
    )


@pytest.mark.parametrize(("batch", "group"), [(4, 2), (8, 2), (12, 3), (32, 4)])
def test_batches_hold_whole_groups_of_several_labels(batch: int, group: int) -> None:
    labels = np.random.default_rng(0).zipf(1.6, 4000).clip(max=60).astype(np.float32)
    plan = plan_of(labels, batch, group=group)
    rows = [each.rows for each in plan]
    assert plan.num_steps > 20
    for each in rows:
        counts = Counter(labels[each].tolist())
        assert len(counts) > 1
        assert all(count % group == 0 for count in counts.values())
    together = np.concatenate(rows)
    assert len(np.unique(together)) == len(together)
    assert plan.skipped["a"] == len(labels) - len(together)


def test_as_many_batches_as_the_peer_makes() -> None:
    from datasets import Dataset
    from sentence_transformers.base.sampler import GroupByLabelBatchSampler

    labels = np.random.default_rng(0).zipf(1.6, 1000).clip(max=30)
    data = Dataset.from_dict({"label": labels.tolist()})
    peer = GroupByLabelBatchSampler(data, 8, drop_last=True, valid_label_columns=["label"])
    assert plan_of(labels.astype(np.float32), 8).num_steps == len(list(peer))


def test_other_rows_of_a_label_wait_in_each_epoch() -> None:
    labels = np.repeat(np.arange(40), 3).astype(np.float32)
    seen = [np.concatenate([each.rows for each in plan_of(labels, 8, epoch=e)]) for e in range(6)]
    assert all(len(rows) == 80 for rows in seen)
    assert len(np.unique(np.concatenate(seen))) == len(labels)


def test_labels_meet_others_in_each_round() -> None:
    labels = np.tile(np.arange(64), 8).astype(np.float32)
    partners: dict[float, set[float]] = {}
    for each in plan_of(labels, 8):
        for label in set(labels[each.rows].tolist()):
            partners.setdefault(label, set()).update(labels[each.rows].tolist())
    assert np.mean([len(found) for found in partners.values()]) > 9  # 4 with a fixed order


def test_a_last_batch_has_two_groups_at_least() -> None:
    labels = np.repeat(np.arange(5), 2).astype(np.float32)
    sizes = {
        drop: [len(b.rows) for b in plan_of(labels, 6, drop_last=drop)] for drop in (True, False)
    }
    assert sizes == {True: [6], False: [6, 4]}
    assert [len(b.rows) for b in plan_of(labels, 8, drop_last=False)] == [8]


def test_it_serves_inside_a_mixer() -> None:
    infos = [
        labelled(np.arange(n).astype(np.float32) % 9, name) for name, n in (("a", 90), ("b", 45))
    ]
    plan = Proportional(GroupByLabel()).plan(
        infos, global_batch_size=8, seed=0, epoch=0, drop_last=True
    )
    assert {batch.source for batch in plan} == {0, 1}


def test_lone_labels_are_counted() -> None:
    assert num_lone_labels(np.array([1, 2, 2, 3, 4, 4, 4])) == 2


@pytest.mark.parametrize(
    ("info", "batch", "message"),
    [
        (SourceInfo("a", 10), 8, "needs labels, and source 'a' has none"),
        (labelled(np.arange(10)), 8, "finds no two labels with 2 rows each"),
        (
            labelled(np.arange(10) % 3),
            7,
            "global_batch_size=7 does not hold two or more whole groups",
        ),
        (labelled(np.arange(10) % 3), 2, "set a multiple of 2, 4 or more"),
        (
            labelled(np.arange(10) % 3, stream=StreamInfo((10,), 1)),
            8,
            "the files of 'a' are read one by one",
        ),
        (labelled(np.arange(10) % 3), 32, "leaves no full batch"),
    ],
)
def test_what_cannot_be_planned_is_refused(info: SourceInfo, batch: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GroupByLabel().plan([info], global_batch_size=batch, seed=0, epoch=0, drop_last=True)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"sampler.rows_per_label=1 leaves a row without another"):
        GroupByLabel(rows_per_label=1)
    infos = [labelled(np.arange(20) % 3, name) for name in "ab"]
    with pytest.raises(ConfigError, match=r"set sampler\.mixed=false"):
        Proportional(GroupByLabel(), mixed=True).plan(
            infos, global_batch_size=8, seed=0, epoch=0, drop_last=True
        )
