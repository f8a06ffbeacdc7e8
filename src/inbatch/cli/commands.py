"""The table of commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Command(NamedTuple):
    """A command of `inbatch`."""

    module: str  # whose `main` runs it
    summary: str  # begins with a verb
    usage: str
    examples: tuple[str, ...]
    keys: tuple[str, ...] = ()  # the most important ones
    config: str = ""  # name of its file in conf/, empty where it takes none
    without_torch: bool = False  # it answers before torch could be imported
    options: Mapping[str, str] = {}  # of its own, "--name VALUE" or "--name": what it does


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
            "inbatch evaluate encoder=minilm data.eval=NanoBEIR devices=8 evaluation.quantisations=[int8]",
        ),
        (
            *("data.eval", "data.columns", "encoder.model", "evaluation", "device", "devices"),
            *("evaluation.truncate_dims", "evaluation.quantisations", "mteb.tasks", "output_dir"),
        ),
        "evaluate",
    ),
    "compare": Command(
        "inbatch.cli.compare",
        "Compare models on the same sets: a table with intervals of a paired bootstrap",
        "inbatch compare models=[MODEL,MODEL,...] data.eval=FILES [KEY=VALUE ...] [OPTION ...]",
        (
            "inbatch compare models=[outputs/a,outputs/b] data.eval=test.csv",
            "inbatch compare 'models={base: BAAI/bge-small-en-v1.5, ours: outputs/a}' data.eval=beir",
            "inbatch compare models=[outputs/a,outputs/b] data.eval.nano=NanoBEIR resamples=10000",
        ),
        (
            *("models", "data.eval", "data.columns", "evaluation", "resamples"),
            *("confidence", "seed", "devices", "output_dir"),
        ),
        "compare",
    ),
    "embed": Command(
        "inbatch.cli.embed",
        "Embed texts of any source: a folder of embeddings, one .npy file or parquet",
        "inbatch embed encoder.model=MODEL data.texts=FILES [KEY=VALUE ...] [OPTION ...]",
        (
            "inbatch embed encoder.model=outputs/offers/model data.texts=offers.csv data.columns.text=title",
            "inbatch embed encoder=minilm data.texts=corpus.jsonl role=document dtype=int8 trainer.devices=2",
            "inbatch embed encoder=minilm data.texts=lines.txt encoder.truncate_dim=128 format=npy",
        ),
        (
            *("data.texts", "data.columns", "encoder.model", "role", "prompt"),
            *("encoder.truncate_dim", "normalize", "dtype", "format", "precision"),
            *("trainer.devices", "output_dir"),
        ),
        "embed",
    ),
    "merge": Command(
        "inbatch.cli.merge",
        "Merge models, checkpoints or the best of a sweep into one model",
        "inbatch merge models=[MODEL,MODEL,...] [KEY=VALUE ...] [OPTION ...]",
        (
            "inbatch merge models=[outputs/a,outputs/b] weights=[0.7,0.3] output_dir=outputs/merged",
            "inbatch merge models='outputs/a/checkpoints/*.ckpt' method=greedy data.eval=dev.csv",
            "inbatch merge models=multirun/run/2026-01-31_12-00-00 best=3",
        ),
        ("models", "method", "weights", "best", "data.eval", "evaluation", "device", "output_dir"),
        "merge",
    ),
    "export": Command(
        "inbatch.cli.export",
        "Write a model as ONNX, in float32 and in 8 bits, and check that its vectors are the same",
        "inbatch export MODEL_OR_RUN --onnx [--int8 [--cpu NAME]] [--output FOLDER] [OPTION ...]",
        (
            "inbatch export outputs/offers --onnx",
            "inbatch export outputs/offers --onnx --int8 --cpu avx512_vnni --texts queries.txt",
            "inbatch export BAAI/bge-small-en-v1.5 --onnx --output outputs/bge-onnx",
        ),
        options={
            "--onnx": "write onnx/model.onnx into the model's directory, where sentence-transformers "
            "(backend='onnx') and onnxruntime find it; it replaces an older onnx/ there",
            "--int8": "also write a file with weights in 8 bits, a quarter of the size and faster on a CPU",
            "--cpu NAME": "the processor that --int8 is for: avx2 (default; right on every x86), avx512, "
            "avx512_vnni or arm64; may be repeated",
            "--output FOLDER": "write a whole model there and leave the other as it is; needed for a model "
            "of the hub and for an adapter, which is merged",
            "--texts FILE": "a text in each line, to compare vectors on; without it 13 of our own",
            "--min-cosine NUMBER": "the lowest cosine to the model's vectors that --int8 may have on a "
            "text (default: 0.95)",
            "--trust-remote-code": "run Python code that the model brings along",
        },
    ),
    "push": Command(
        "inbatch.cli.push",
        "Upload a model to the Hugging Face hub, private unless told otherwise; first say what",
        "inbatch push MODEL_OR_RUN OWNER/NAME [--public] [--yes]",
        (
            "inbatch push outputs/offers acme/offers     # says what would be uploaded, and uploads nothing",
            "inbatch push outputs/offers acme/offers --yes",
            "inbatch push outputs/offers acme/offers --public --yes",
        ),
        options={
            "--yes": "upload; the token is that of hf auth login, or HF_TOKEN",
            "--public": "let everyone see the repository; without it a new one is private, and one that "
            "is public is refused",
        },
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
            *("data.train", "data.columns", "encoder.model", "global_batch_size", "loss"),
            *("sampler", "inspect.rows", "inspect.output"),
        ),
        "train",
    ),
    "import": Command(
        "inbatch.cli.import_run",
        "Turn a card, directory, script or arguments of sentence-transformers into an experiment",
        "inbatch import SOURCE [--name NAME] [--output FOLDER|FILE.yaml]",
        (
            "inbatch import README.md > conf/experiment/offers.yaml",
            "inbatch import outputs/old/checkpoint-500 --name offers --output conf/experiment",
            "inbatch import train.py",
        ),
        without_torch=True,
        options={
            "--name NAME": "of the experiment; without it that of the source",
            "--output PATH": "a folder or a YAML file to write; without it the experiment is printed",
        },
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
    "mine": Command(
        "inbatch.cli.mine",
        "Mine hard negatives for training rows from their own documents or a larger corpus",
        "inbatch mine encoder.model=MODEL data.train=FILES [mine.corpus=FILES] [KEY=VALUE ...] [OPTION ...]",
        (
            "inbatch mine encoder.model=outputs/offers/model data.train=pairs.csv mine.num_negatives=5",
            "inbatch mine encoder=minilm data.train=pairs.csv mine.corpus='all/*.parquet' mine.percentage=95",
            "inbatch mine encoder=minilm guide.model=MODEL mine.guide_margin=0 data.train=pairs.csv",
        ),
        (
            *("data.train", "data.columns", "encoder.model", "guide.model", "mine.corpus"),
            *("mine.num_negatives", "mine.range_min", "mine.percentage", "mine.max_score"),
            *("mine.guide_margin", "mine.choice", "trainer.devices", "output_dir"),
        ),
        "mine",
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
            *("slurm.nodes", "slurm.gpus_per_node", "slurm.time", "slurm.partition"),
            *("slurm.account", "slurm.container", "slurm.options"),
        ),
        "train",
    ),
    "recipe": Command(
        "inbatch.cli.recipe",
        "Run a chain of commands: train, mine, train again, distil, compare; here or on Slurm",
        "inbatch recipe NAME|FILE.yaml [--dry-run] [--submit] KEY=VALUE ... [STAGE.KEY=VALUE ...]",
        (
            "inbatch recipe rounds data.train=pairs.csv data.eval=dev.csv output_dir=outputs/rounds",
            "inbatch recipe rounds --dry-run data.train=pairs.csv first.optimizer.lr=1e-4",
            "inbatch recipe rounds --submit data.train=pairs.csv slurm.gpus_per_node=8 compare.slurm.time=30",
        ),
        options={
            "--dry-run": "print the commands (with --submit the jobs) and start nothing",
            "--submit": "submit each stage to Slurm, with slurm.KEY=VALUE",
        },
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
        without_torch=True,
    ),
    "card": Command(
        "inbatch.cli.card",
        "Write the model card of a finished run again, from the run's directory",
        "inbatch card RUN_DIR [--overwrite]",
        (
            "inbatch card outputs/offers",
            "inbatch card outputs/offers --overwrite     # edits of model/README.md are lost",
            "inbatch card multirun/run/2026-01-31_12-00-00/best",
        ),
        options={"--overwrite": "also in place of a card that was edited since the run wrote it"},
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
        without_torch=True,
    ),
}
