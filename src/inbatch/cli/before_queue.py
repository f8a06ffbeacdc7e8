"""What a job would fail with after hours in the queue, found where it is submitted.

Nothing heavy is read: of files that they are there, of models that they can be found. A hub model that is
in no cache is fetched here, where there is a network, and lies in the cache when the job starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from inbatch.cluster.job_script import Slurm
from inbatch.config.check import RunConfig, check_precision
from inbatch.data.sources.config_keys import source_field
from inbatch.data.sources.files import resolve_files
from inbatch.encoder.resolve import resolve_directory
from inbatch.errors import ConfigError
from inbatch.evaluation.plain_tables import TREC_SUFFIXES, suffix_of
from inbatch.evaluation.retrieval_sets import is_collection, set_folders
from inbatch.evaluation.retrieval_spec import is_retrieval, retrieval_spec
from inbatch.run.batch_checks import check_sizes


def check_job(run: RunConfig, slurm: Slurm, *, cwd: Path) -> None:
    """Check what a run needs of its job, its files and its models.

    Args:
        run: of the job, checked for itself.
        slurm: the resources.
        cwd: folder that the job runs in.

    Raises:
        ConfigError: the run would end with this when it starts.
    """
    train = slurm.job != "embed"
    _check_ranks(run, slurm)
    if train:
        check_sizes(
            run.global_batch_size, run.sampler.get("batch_sizes"), world_size=slurm.num_tasks
        )
        check_precision(run.precision, "cuda" if slurm.gpus_per_node else "cpu")
    with chdir(cwd):
        if run.data.generate is None:  # which writes the files when the run starts
            _check_files(run, with_evaluation=train)
        if train and isinstance(run.encoder.get("model"), str):
            revision = run.encoder.get("revision")
            resolve_directory(run.encoder["model"], field="encoder.model", revision=revision)
        if run.guide.model is not None:
            resolve_directory(run.guide.model, field="guide.model", revision=run.guide.revision)


def _check_ranks(run: RunConfig, slurm: Slurm) -> None:
    """Refuse other numbers of ranks than those of the job."""
    for key, value, expected, slurm_key in (
        ("devices", run.trainer.devices, slurm.tasks_of_node, "tasks_per_node"),
        ("num_nodes", run.trainer.num_nodes, slurm.nodes, "nodes"),
    ):
        default = "auto" if key == "devices" else 1
        if value != default and str(value) != str(expected):
            raise ConfigError(
                f"trainer.{key}",
                f"is not what the job starts ({expected})",
                f"leave it out, and set slurm.{slurm_key}",
                value=value,
            )


def _check_files(run: RunConfig, *, with_evaluation: bool) -> None:
    for name, value in run.data.train.items():
        _check_paths(value.get("path"), field=source_field("data.train", name))
    for name, node in run.evaluation.evaluators.items() if with_evaluation else ():
        given = source_field("data.eval", name)
        by_name = run.data.eval if isinstance(run.data.eval, Mapping) else {}
        field = given if name == "eval" or name in by_name else f"evaluation.evaluators.{name}"
        path = node.get("path")
        if is_collection(path):
            set_folders(path, field=field)
        elif is_retrieval(path):
            spec = retrieval_spec(path, field=field, split=node.get("split"))
            for part, files in spec.files.items():
                _check_paths(files, field=f"{field}.{part}")
        else:
            _check_paths(path, field=field)


def _check_paths(value: Any, *, field: str) -> None:
    for path in _paths(value):
        # Judgements as trec_eval takes them are no table.
        is_trec = suffix_of(path) in TREC_SUFFIXES and Path(path).is_file()
        if not Path(path).is_dir() and not is_trec:  # a folder is prepared data
            resolve_files(path, field=field)


def _paths(value: Any) -> Iterator[str]:
    """Paths of this machine in what a source or an evaluator reads."""
    if isinstance(value, str) and "://" not in value:
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _paths(each)
    elif isinstance(value, Mapping) and "path" in value:
        yield from _paths(value["path"])
