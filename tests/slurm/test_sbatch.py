"""Job scripts and job directories, without Slurm."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from inbatch.cli.submit import Job, compose_job, main, read_slurm, submit, submit_job, write
from inbatch.cluster.job_script import Slurm, job_options, job_variables, render
from inbatch.errors import ConfigError

ROOT = Path(__file__).parents[2]
TEMPLATE = """\
#!/bin/bash
#SBATCH --nodes=1
# a reason
#SBATCH --gpus-per-node=1
#SBATCH --requeue

CODE="$HERE"
ARGS=("$@")
NODES=(1)
echo "$CODE" "${ARGS[@]}"
"""


def options_of(script: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, flags=re.MULTILINE)
    assert len(found) == len(dict(found))
    return dict(found)


def prepared(*arguments: str, cwd: Path) -> Job:
    return compose_job(arguments, now=datetime(2026, 2, 3, 4, 5, 6), cwd=cwd)


def test_values_are_replaced_and_reasons_stay() -> None:
    options = {"nodes": "4", "gpus-per-node": None, "requeue": "", "mem": "64G", "exclusive": ""}
    variables: dict[str, str | list[str]] = {"CODE": "/a b", "ARGS": ["x=[1, 2]", "y='z'"]}
    script = render(TEMPLATE, options=options, variables=variables)
    assert options_of(script) == {"nodes": "4", "requeue": "", "mem": "64G", "exclusive": ""}
    assert "# a reason\n" in script
    assert "NODES=(1)" in script
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == "/a b x=[1, 2] y='z'\n"


def test_nothing_to_replace_is_the_script_itself() -> None:
    assert render(TEMPLATE, options={}, variables={}) == TEMPLATE


def test_a_variable_that_no_line_assigns_is_refused() -> None:
    with pytest.raises(ValueError, match="PYTHON"):
        render(TEMPLATE, options={}, variables={"PYTHON": "python"})


@pytest.mark.parametrize("name", ["train", "embed"])
@pytest.mark.parametrize(
    ("slurm", "expected", "absent"),
    [
        (
            {},
            {"nodes": "1", "ntasks-per-node": "1", "gpus-per-node": "1", "requeue": ""},
            ["partition"],
        ),
        ({"gpus_per_node": 8, "nodes": 4}, {"ntasks-per-node": "8", "nodes": "4"}, ["account"]),
        ({"gpus_per_node": 0}, {"ntasks-per-node": "1"}, ["gpus-per-node"]),
        ({"gpus_per_node": 0, "tasks_per_node": 3}, {"ntasks-per-node": "3"}, ["gpus-per-node"]),
        ({"requeue": False}, {"no-requeue": ""}, ["requeue"]),
        ({"partition": "long", "time": 90}, {"partition": "long", "time": "90"}, []),
        ({"options": {"mem": 0, "open-mode": None}}, {"mem": "0"}, ["open-mode"]),
        ({"mem": "64G"}, {"mem": "64G"}, []),
        ({"mem": 0}, {"mem": "0"}, []),
    ],
)
def test_options(
    name: str, slurm: dict[str, object], expected: dict[str, str], absent: list[str]
) -> None:
    asked = Slurm(job=name, **slurm)  # type: ignore[arg-type]
    directory = Path("/out/run/jobs/now")
    template = (ROOT / "slurm" / f"{name}.sbatch").read_text()
    options = job_options(asked, name="run", directory=directory, cwd=Path("/home"))
    variables = job_variables(
        asked, directory=directory, cwd=Path("/home"), python="/venv/bin/python"
    )
    found = options_of(render(template, options=options, variables=variables))
    assert expected.items() <= found.items()
    assert not found.keys() & set(absent)
    assert found["output"] == "/out/run/jobs/now/%j.log"
    assert found.get("signal") == ("USR1@300" if name == "train" else None)


@pytest.mark.parametrize("name", ["train", "embed", "sweep"])
def test_options_of_srun_reach_it(name: str) -> None:
    asked = Slurm(srun={"container-image": "/a b.sqsh", "label": ""})
    variables = job_variables(asked, directory=Path("/o/jobs/1"), cwd=Path("/"), python="/bin/py")
    script = render(
        (ROOT / "slurm" / f"{name}.sbatch").read_text(), options={}, variables=variables
    )
    said = subprocess.run(
        [*("bash", "-c"), f"srun() {{ printf '%s|' \"$@\"; }}; {_tail(script)}"],
        env={"SLURM_CPUS_PER_TASK": "2", "SLURM_ARRAY_TASK_ID": "0", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    before = "--kill-on-bad-exit=1|--cpus-per-task=2|--container-image=/a b.sqsh|--label|python|-m|"
    assert said.stdout.startswith(before), said.stderr


def test_a_sweep_that_is_submitted_by_hand_runs_the_trial_of_its_task(tmp_path: Path) -> None:
    """With stand-ins for `srun`, which runs its command, and for Python, which prints what it is to run."""
    tools = {
        "srun": 'while [[ "$1" == --* ]]; do shift; done\nexec "$@"',
        "python": 'printf "%s|" "$@"\necho\n[ "$3" = report ] || exit 3',
        "scontrol": "echo localhost",
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "9"}
    place = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_NODELIST": "n1", "SLURM_CPUS_PER_TASK": "1"}
    line = ["bash", str(ROOT / "slurm" / "sweep.sbatch"), "optimizer.lr=1e-4,1e-2", "name=a b"]
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **task, **place}
    for more, folder in (({}, "multirun/7"), ({"SWEEP": "here"}, "here")):
        done = subprocess.run(line, env={**given, **more}, capture_output=True, text=True)
        assert done.stderr == ""
        trial = f"hydra/launcher=array|hydra.launcher.trial=1|hydra.sweep.dir={folder}"
        assert done.stdout.splitlines() == [
            f"-m|inbatch|train|--multirun|{trial}|optimizer.lr=1e-4,1e-2|name=a b|",
            f"-m|inbatch|report|{folder}|",
        ]
        assert done.returncode == 3, "that of the trial"


def _tail(script: str) -> str:
    """The assignments and the command of a script, without its set-up."""
    lines = script.splitlines()
    wanted = (
        "CODE=",
        "PYTHON=",
        "CONTAINER=",
        "SRUN=",
        "ARGS=",
        "command=",
        "inbatch=",
        "srun ",
        "exec srun ",
        "    hydra/",
    )
    return "\n".join(line.removeprefix("exec ") for line in lines if line.startswith(wanted))


def test_jobs_of_one_output_directory_share_a_name() -> None:
    names = [
        job_options(Slurm(), name="run", directory=Path(path), cwd=Path("/"))["job-name"]
        for path in ("/a/jobs/1", "/a/jobs/2", "/b/jobs/1")
    ]
    assert names[0] == names[1] != names[2]


def test_a_job_holds_what_it_runs(tmp_path: Path) -> None:
    job = prepared("experiment=demo", "seed=7", "output_dir=here", "slurm.nodes=2", cwd=tmp_path)
    script = write(job)
    assert script.parent == tmp_path / "here" / "jobs" / "2026-02-03_04-05-06"
    config = OmegaConf.load(script.parent / "config.yaml")
    assert (config.name, config.seed, config.output_dir) == ("demo", 7, str(tmp_path / "here"))
    assert config.hydra.run.dir == config.output_dir
    assert config.precision == "auto"  # the job's machine decides, not the one that submits
    for path in ("src/inbatch/run/train.py", "conf/train.yaml", "scripts/train.py", "slurm/env.sh"):
        assert (script.parent / "code" / path).read_bytes() == (ROOT / path).read_bytes()
    assert options_of(script.read_text())["nodes"] == "2"
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_a_time_is_a_time(tmp_path: Path) -> None:
    """YAML reads 24:00:00 as the number 86400."""
    assert read_slurm([]).time == "24:00:00"
    assert read_slurm(["slurm.time=24:00:00"]).time == "24:00:00"
    assert read_slurm(["slurm.options={mem: 64G}"]).options == {"mem": "64G"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("slurm.gpu_per_node=2", "slurm.gpu_per_node.*gpus_per_node"),
        ("slurm.nodes=many", "slurm.nodes"),
        ("slurm.job=sleep", "slurm.job"),
        ("slurm.nodes=[1", "slurm.nodes='.1' is not a whole number"),
        ("global_batchsize=2", "global_batch_size"),
        ("experiment=dmo", "demo"),
        ("global_batch_size=129", "global_batch_size=129 does not divide over 2 ranks"),
        ("slurm.nodes=3", "global_batch_size=256 does not divide over 6 ranks"),
        ("slurm.tasks_per_node=5", "does not divide over 5 ranks: set 255 or 260"),
        ("trainer.devices=8", r"trainer.devices=8 is not what the job starts \(2\): leave it out"),
        ("trainer.num_nodes=2", r"trainer.num_nodes=2 is not .* set slurm.nodes"),
        (
            "encoder=bert_base",
            "encoder.model='google-bert/bert-base-uncased' is neither a directory",
        ),
        ("guide.model=nowhere/none", "guide.model='nowhere/none' is neither a directory"),
        ("encoder.model=./gone", "encoder.model='./gone' is not a directory"),
    ],
)
def test_mistakes_end_before_the_queue(argument: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared("experiment=demo", "slurm.gpus_per_node=2", argument, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


PARTS = [f"data.eval.{part}=folder/{part}.jsonl" for part in ("corpus", "queries")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.train=gone.csv"], "data.train='gone.csv' matches no file"),
        (["data.train.a=here.csv", "data.train.b=gone.csv"], "data.train.b.path='gone.csv'"),
        (["data.train=[here.csv,gone/*.csv]"], "data.train='gone/.*csv' matches no file"),
        (["data.train=here.csv", "data.eval=gone.csv"], "data.eval='gone.csv' matches no file"),
        (
            ["data.train=here.csv", "data.eval={dev: {path: gone.csv}}"],
            "^data.eval.dev='gone.csv' matches no file",
        ),
        (
            ["data.train=here.csv", "precision=fp16", "slurm.gpus_per_node=0"],
            "precision='fp16' needs",
        ),
        (["data.train=here.csv", "data.eval=folder", "data.eval.split=dev"], ""),
        (["data.train=here.csv", "data.eval=folder"], r"several judgements \(dev, test\)"),
        (["data.train=here.csv", *PARTS, "data.eval.qrels=folder/qrels/test.txt"], ""),
        (
            ["data.train=here.csv", *PARTS, "data.eval.qrels=gone.tsv"],
            "^data.eval.qrels='gone.tsv' matches no file",
        ),
        (["data.train=s3://bucket/x.csv"], ""),
        (
            ["data.train=hub", "data.train.hub=someone/some"],
            "data.train needs either a path or a hub",
        ),
        (["data.train.hub=someone/some"], ""),
    ],
)
def test_files_are_looked_for_before_the_queue(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "folder" / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/dev.tsv", "qrels/test.txt"):
        (tmp_path / "folder" / name).touch()  # nothing is read
    (tmp_path / "here.csv").write_text("query,positive\na,b\n")
    with pytest.raises(ConfigError, match=message) if message else nullcontext():
        prepared("encoder=tiny", *arguments, cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "here.csv"}


def test_a_sweep_is_an_array_with_the_values_of_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slurm").mkdir()
    cluster = OmegaConf.load(ROOT / "slurm" / "cluster.yaml")
    OmegaConf.save(
        {**cluster, "partition": "long", "modules": ["cuda"]}, tmp_path / "slurm/cluster.yaml"
    )
    monkeypatch.chdir(tmp_path)
    sweep = ["slurm.job=sweep", "experiment=demo", "optimizer.lr=1e-5,2e-5", "encoder=minilm,tiny"]
    job = prepared(*sweep, "name=my (1)", cwd=tmp_path)
    found = options_of(job.script)
    expected = {"array": "0-3", "partition": "long", "signal": "USR1@300"}
    assert expected.items() <= found.items()
    assert "dependency" not in found
    assert job.output_dir == tmp_path / "multirun" / "my (1)" / "2026-02-03_04-05-06"
    assert "MODULES=(cuda)\n" in job.script
    assert f"SWEEP='{job.output_dir}'\n" in job.script
    arguments = "(experiment=demo ++optimizer.lr=1e-5,2e-5 encoder=minilm,tiny "
    assert f"ARGS={arguments}" in job.script
    subprocess.run(["bash", "-n", str(write(job))], check=True)
    assert prepared(*sweep, "hydra.sweep.dir=s", cwd=tmp_path).output_dir == tmp_path / "s"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("global_batch_size=8,9", "global_batch_size=9 does not divide over 2 ranks"),
        ("encoder=minilm,bert_base", "encoder.model='google-bert/bert-base-uncased' is neither"),
        ("loss.temperature=1,-1", "loss.temperature=-1"),
        ("optimizer.lr=interval(0,1)", "slurm.job=sweep cannot count the trials .*: give values"),
    ],
)
def test_every_trial_is_checked_before_the_queue(
    argument: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepared(*("slurm.job=sweep", "slurm.nodes=2", "experiment=demo", argument), cwd=tmp_path)


@pytest.mark.parametrize("sbatch", ["no-such-sbatch", "ls"])
def test_a_refused_submission_leaves_no_folder(tmp_path: Path, sbatch: str) -> None:
    job = prepared("experiment=demo", "output_dir=runs/here", cwd=tmp_path)
    with pytest.raises(ConfigError):
        submit_job(job, sbatch=[sbatch])
    assert not list(tmp_path.iterdir())
    job.output_dir.mkdir(parents=True)  # with a run in it
    with pytest.raises(ConfigError):
        submit_job(job, sbatch=[sbatch])
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "here"]
    assert submit_job(job, sbatch=["echo", "4711;cluster"]) == "4711"
    assert (job.directory / "job.sbatch").is_file()


def test_a_dry_run_shows_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["submit", "--dry-run", "experiment=demo", "slurm.nodes=2"])
    main()
    shown = capsys.readouterr().out
    assert "#SBATCH --nodes=2" in shown
    assert "global_batch_size: 256" in shown
    assert not list(tmp_path.iterdir())


def test_without_sbatch_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-such-sbatch is not installed here: .* --dry-run"):
        submit(tmp_path / "job.sbatch", sbatch=["no-such-sbatch"])
    with pytest.raises(ConfigError, match=r"job.sbatch is refused by Slurm \("):
        submit(tmp_path / "job.sbatch", sbatch=["ls"])
