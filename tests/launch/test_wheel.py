"""An installed wheel, in a folder that is not the checkout, does all that the checkout does."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from helpers.runs import TINY, write_triplets

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that holds the wheel.

    Other packages are those of this environment, behind a .pth file, except its inbatch, which is left out.
    """
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT)],
        check=True,
    )
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    [packages] = (folder / "venv").glob("lib/python*/site-packages")
    [wheel] = folder.glob("*.whl")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, f"--python={python}", "install", "--no-deps", str(wheel)], check=True)
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def run(line: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        line,
        cwd=folder,
        env={**variables, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_package_is_the_wheels(programs: Path, tmp_path: Path) -> None:
    code = "import inbatch; from inbatch.config.schema import CONF; print(inbatch.__file__, CONF)"
    done = run([str(programs / "python"), "-c", code], tmp_path)
    module, conf = map(Path, done.stdout.split())
    assert module.is_relative_to(programs.parent), done.stderr
    assert conf == module.parent / "conf"
    names = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert {path.relative_to(conf) for path in conf.rglob("*.yaml")} >= {
        name for name in names if name.parts[0] != "local"
    }
    assert run([str(programs / "inbatch"), "train", "--help"], tmp_path).returncode == 0


def test_a_job_of_a_wheel_trains_and_two_ranks_embed_with_its_model(
    programs: Path, tmp_path: Path
) -> None:
    """`sbatch` and `srun` are stand-ins: the one runs the script, the other its command.

    Lightning starts the second rank by repeating the command line, the command included.
    """
    write_triplets(tmp_path / "triplets.jsonl", 24)
    tools = tmp_path / "tools"
    tools.mkdir()
    job = "export SLURM_JOB_ID=7 SLURM_JOB_NODELIST=localhost SLURM_CPUS_PER_TASK=1"
    scripts = {
        "sbatch": f'#!/bin/bash\n{job}\nbash "$2" > job.log 2>&1 && echo 7',
        "srun": '#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\nexec "$@"',
        "scontrol": "#!/bin/bash\necho localhost",
    }
    for name, text in scripts.items():
        (tools / name).write_text(text + "\n")
        (tools / name).chmod(0o755)
    line = [*TINY, "data.train=triplets.jsonl", "global_batch_size=8"]
    submit = ["env", f"PATH={tools}:{os.environ['PATH']}", str(programs / "inbatch"), "submit"]
    done = run([*submit, *line, "slurm.gpus_per_node=0"], tmp_path)
    log = tmp_path / "job.log"
    assert done.returncode == 0, done.stderr + log.read_text()
    assert done.stdout.startswith("job: 7\n")
    model = tmp_path / "outputs" / "run" / "model"
    assert (model / "README.md").exists()
    [job_folder] = (tmp_path / "outputs" / "run" / "jobs").iterdir()
    assert [path.name for path in (job_folder / "code").iterdir()] == ["slurm"]
    guided = ["loss=gist", f"guide.model={model}", "guide.store_dir=store", "output_dir=guided"]
    line = [*line, *guided, "trainer.devices=2"]
    done = run([str(programs / "inbatch"), "embed-guide", *line], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([*(tmp_path / "store").glob("*/prompt-*/shard-*")]) == 2  # one of each rank
    assert not (tmp_path / "guided" / "model").exists()
