"""The table of commands."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command of `inbatch`."""

    module: str  # whose `main` runs it
    summary: str  # begins with a verb
    usage: str
    examples: tuple[str, ...]
    keys: tuple[str, ...] = ()  # the most important ones
    config: str = ""  # name of its file in conf/, empty where it takes none


_RUN_KEYS = (
    *("data.train", "data.eval", "encoder.model", "loss", "guide.model", "global_batch_size"),
    *("optimizer.lr", "trainer.max_epochs", "trainer.devices", "precision", "resume", "output_dir"),
)

COMMANDS = {
    "train": Command(
        "inbatch.cli.train",
        "Train a bi-encoder: files of texts in, a sentence-transformers model out",
        "inbatch train KEY=VALUE ... [OPTION ...]",
        (
            "inbatch train experiment=demo",
            "inbatch train encoder.model=BAAI/bge-base-en-v1.5 data.train='offers/*.parquet'",
            "inbatch train -m experiment=demo optimizer.lr=1e-5,2e-5     # a sweep: one run for each value",
        ),
        _RUN_KEYS,
        "train",
    ),
    "evaluate": Command(
        "inbatch.cli.evaluate",
        "Evaluate a saved model: a table, and metrics.json in output_dir",
        "inbatch evaluate encoder.model=MODEL data.eval=FILES [KEY=VALUE ...] [OPTION ...]",
        (
            "inbatch evaluate encoder.model=outputs/offers/model data.eval=test.csv",
            "inbatch evaluate encoder=minilm data.eval.news=news.csv data.eval.faq=faq.jsonl",
            "inbatch evaluate encoder.model=outputs/offers/model evaluation=retrieval data.eval=pairs.csv",
        ),
        ("data.eval", "data.columns", "encoder.model", "evaluation", "device", "output_dir"),
        "evaluate",
    ),
    "inspect": Command(
        "inbatch.cli.inspect",
        "Look at training data: roles, lengths, duplicates, false negatives, what to train with",
        "inbatch inspect data.train=FILES [KEY=VALUE ...] [OPTION ...]",
        (
            "inbatch inspect data.train=pairs.csv",
            "inbatch inspect data.train='offers/*.parquet' encoder=minilm global_batch_size=4096",
            "inbatch inspect data.train=pairs.csv inspect.output=pairs.json > pairs.txt",
        ),
        (
            *(
                "data.train",
                "data.columns",
                "encoder.model",
                "global_batch_size",
                "loss",
                "sampler",
            ),
            *("inspect.rows", "inspect.output"),
        ),
        "train",
    ),
    "prepare": Command(
        "inbatch.cli.prepare",
        "Turn the data of a run into shards, once for all runs",
        "inbatch prepare prepare.output=FOLDER KEY=VALUE ... [OPTION ...]",
        (
            "inbatch prepare data.train='offers/*.parquet' prepare.output=prepared prepare.workers=4",
            "inbatch prepare experiment=mine prepare.output=prepared prepare.tokenize=true",
            "inbatch train data.train=prepared encoder=minilm     # train on the result",
        ),
        (
            *("prepare.output", "prepare.tokenize", "prepare.workers", "prepare.shard_rows"),
            *("data.train", "encoder.model"),
        ),
        "train",
    ),
    "plan": Command(
        "inbatch.cli.plan",
        "Compute time, memory and traffic of a step on 1 to 1,024 ranks",
        "inbatch plan plan.rates=CARD|doctor.json KEY=VALUE ... [OPTION ...]",
        (
            "inbatch plan experiment=demo plan.rates=h100",
            "inbatch plan encoder=minilm data.train=pairs.csv global_batch_size=65536 plan.rates=doctor.json",
            "inbatch plan experiment=demo plan.rates=a100 plan.far_gbit_per_s=100 plan.ranks=64",
        ),
        (
            *("plan.rates", "plan.ranks", "plan.far_gbit_per_s", "plan.output"),
            *("global_batch_size", "encoder.model", "data.train", "precision"),
        ),
        "train",
    ),
    "embed-guide": Command(
        "inbatch.cli.embed_guide",
        "Fill the guide's store ahead of a run, with the keys of that run",
        "inbatch embed-guide KEY=VALUE ... [OPTION ...]",
        (
            "inbatch embed-guide experiment=demo",
            "inbatch embed-guide experiment=demo trainer.devices=2",
            "inbatch embed-guide loss=cached_gist guide=minilm encoder=minilm data.train=triplets.csv",
        ),
        ("guide.model", "guide.store_dir", "guide.chunk_tokens", "data.train", "trainer.devices"),
        "train",
    ),
    "submit": Command(
        "inbatch.cli.submit",
        "Submit a run to Slurm, with the keys of that run and slurm.KEY=VALUE",
        "inbatch submit [--dry-run] KEY=VALUE ... [slurm.KEY=VALUE ...]",
        (
            "inbatch submit --dry-run experiment=demo slurm.nodes=4 slurm.gpus_per_node=8",
            "inbatch submit experiment=demo slurm.nodes=4 slurm.gpus_per_node=8 slurm.time=08:00:00",
            "inbatch submit experiment=demo slurm.job=sweep optimizer.lr=1e-5,2e-5     # or embed",
        ),
        (
            *(
                "slurm.nodes",
                "slurm.gpus_per_node",
                "slurm.time",
                "slurm.partition",
                "slurm.account",
            ),
            *("slurm.container", "slurm.options"),
        ),
        "train",
    ),
    "report": Command(
        "inbatch.cli.report",
        "Write the table and the plots of a sweep again, from its folder",
        "inbatch report FOLDER",
        (
            "inbatch report multirun/run/2026-01-31_12-00-00",
            "inbatch report multirun/run/2026-01-31_12-00-00 && open multirun/run/*/plots/*.png",
            "inbatch train -m experiment=demo seed=1,2,3     # makes such a folder",
        ),
    ),
    "doctor": Command(
        "inbatch.cli.doctor",
        "Say what holds on a new machine or cluster: versions, rates, correctness",
        "inbatch doctor [KEY=VALUE ...]",
        (
            "inbatch doctor     # this machine, one process",
            "torchrun --nproc-per-node=2 -m inbatch doctor output_dir=outputs",
            "srun --nodes=2 --ntasks-per-node=8 inbatch doctor output_dir=outputs",
        ),
        ("output_dir", "device", "timeout_s"),
    ),
    "completion": Command(
        "inbatch.cli.completion",
        "Print the lines that make a shell complete commands, groups, choices and keys",
        "inbatch completion bash|zsh",
        (
            'eval "$(inbatch completion bash)"     # in ~/.bashrc',
            'eval "$(inbatch completion zsh)"      # in ~/.zshrc, after compinit',
            "inbatch train optim<TAB>",
        ),
    ),
}
