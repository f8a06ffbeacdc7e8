"""`inbatch.embed`, `inbatch.mine` and `inbatch.merge`: what comes between two rounds of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inbatch.api.compose import compose_command, with_places
from inbatch.api.devices import one_device
from inbatch.api.rows import by_name, file_spec, to_table
from inbatch.config.check_embed import check_embed
from inbatch.config.check_merge import check_merge
from inbatch.config.check_mine import check_mine
from inbatch.errors import ConfigError
from inbatch.folder.paths import RunFolder
from inbatch.run.embed import embed as run_embed
from inbatch.run.merge import merge_models
from inbatch.run.mine import mine as run_mine
from inbatch.run.quiet import quiet


@quiet()
def embed(
    texts: Any,
    *,
    encoder: str | Path,
    columns: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> Path:
    """Embed the texts of files, with the same settings, defaults and checks as ``inbatch embed``.

    A second call with the same settings goes on where the first one has stopped. For texts in memory there is
    `Encoder.encode`.

    Args:
        texts: a file, a glob or a list of files, or a dict of a source's keys.
        encoder: the name of a file in conf/encoder, or a directory or hub name of a model.
        columns: ``{text: ..., id: ...}`` -> names of columns.
        output_dir: everything is written here.
        settings: every other key of the command, such as ``role="document"`` or ``dtype="int8"``.

    Returns:
        The folder, which `inbatch.corpus.open_embeddings` opens; the file if `format` is npy or parquet.

    Raises:
        ConfigError: a model, file, folder or setting that cannot be used.
    """
    names = with_places(settings, columns=columns, output_dir=output_dir)
    names["encoder"] = str(encoder)
    names["data.texts"] = _files(texts, "texts")
    run = check_embed(compose_command("embed", names))
    return run_embed(replace(run, trainer=one_device(run.trainer, command="embed")))


@quiet()
def mine(
    train: Any,
    *,
    encoder: str | Path,
    columns: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> Path:
    """Mine hard negatives, with the same settings, defaults and checks as ``inbatch mine``.

    A second call with the same settings goes on where the first one has stopped.

    Args:
        train: training rows, as files: one, a glob, a list, or ``{name: any of these}`` for several sources.
        encoder: the name of a file in conf/encoder, or a directory or hub name of a model.
        columns: ``{query, positive, negatives, key}`` -> names of columns.
        output_dir: everything is written here.
        settings: every other key of the command, such as ``mine={"num_negatives": 5}``.

    Returns:
        The folder with the rows, ``mined-*.parquet``, and the report.

    Raises:
        ConfigError: a model, file, folder or setting that cannot be used.
    """
    names = with_places(settings, columns=columns, output_dir=output_dir)
    names["encoder"] = str(encoder)
    sources = by_name(train, "train")
    names["data.train"] = {name: _files(value, name) for name, value in sources.items()}
    run = check_mine(compose_command("mine", names))
    return run_mine(replace(run, trainer=one_device(run.trainer, command="mine")))


@quiet()
def merge(
    models: str | Path | Sequence[str | Path],
    *,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> Path:
    """Merge models into one, with the same settings, defaults and checks as ``inbatch merge``.

    Args:
        models: models, runs' folders, checkpoints or patterns of paths, or the folder of a sweep.
        output_dir: everything is written here, the metrics in ``merge.json``.
        settings: every other key of the command, such as ``method="greedy"`` and
            ``data={"eval": "dev.csv"}``.

    Returns:
        The directory of the model.

    Raises:
        ConfigError: models that do not go together, or a setting or file that cannot be used.
    """
    names = with_places(settings, output_dir=output_dir)
    if isinstance(models, str | Path):
        names["models"] = str(models)
    else:
        names["models"] = [str(model) for model in models]
    run = check_merge(compose_command("merge", names))
    merge_models(run)
    return RunFolder(Path(run.output_dir)).model


def _files(value: Any, key: str) -> Any:
    """The files of a source, as the configuration has them.

    Raises:
        ConfigError: it is a table in memory, which a command that goes on after a stop cannot have read.
    """
    if to_table(value, key=key) is not None:
        fix = "write it to a parquet file, and pass its path"
        raise ConfigError(key, "is a table in memory, and only files are taken here", fix)
    return file_spec(value)
