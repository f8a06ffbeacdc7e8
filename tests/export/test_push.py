"""`inbatch push`, against a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import huggingface_hub.constants as constants
import pytest

from helpers.hub import TOKEN, Hub, hub_server
from inbatch.cli import push as command
from inbatch.errors import ConfigError
from inbatch.export.upload import uploads
from inbatch.run.push import push

NAME = "acme/offers"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files by plain HTTP
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run: a model, and what must never leave this machine."""
    folder = tmp_path / "run"
    model = folder / "model"
    (model / "onnx").mkdir(parents=True)
    (model / "modules.json").write_text("[]")
    (model / "README.md").write_text("---\nlicense: mit\n---\n# offers\n")
    (model / "model.safetensors").write_bytes(b"weights" * 1000)
    (model / "onnx" / "model.onnx").write_bytes(b"graph")
    (model / ".notes").write_text("hidden")
    (folder / "config.yaml").write_text("data: private")
    (folder / "train.log").write_text("private")
    return folder


SENT = ["README.md", "model.safetensors", "modules.json", "onnx/model.onnx"]


def test_the_model_and_nothing_else_is_uploaded(hub: Hub, run: Path) -> None:
    said: list[str] = []
    address = push(str(run), NAME, public=False, say=said.append)
    assert address == f"{hub.url}/{NAME}/commit/1"
    assert hub.private == {NAME: True}
    assert {file: len(content) for file, content in hub.files[NAME].items()} == {
        file: (run / "model" / file).stat().st_size for file in SENT
    }
    assert hub.files[NAME]["model.safetensors"] == b"weights" * 1000
    assert said == []


def test_public_only_when_told(hub: Hub, run: Path) -> None:
    push(str(run / "model"), NAME, public=True)
    assert hub.private == {NAME: False}
    before = len(hub.requests)
    with pytest.raises(ConfigError, match="'acme/offers' is a public repository: add --public"):
        push(str(run), NAME, public=False)
    assert not any("commit" in request for request in hub.requests[before:])


def test_files_of_other_weights_are_named(hub: Hub, run: Path) -> None:
    hub.private[NAME] = True
    hub.files[NAME] = {".gitattributes": b"", "onnx/old.onnx": b"old", "README.md": b"old"}
    said: list[str] = []
    push(str(run), NAME, public=False, say=said.append)
    assert said == ["kept from before: onnx/old.onnx"]
    assert hub.files[NAME]["onnx/old.onnx"] == b"old"
    assert hub.files[NAME]["README.md"].endswith(b"# offers\n")


def printed(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    monkeypatch.setattr(sys, "argv", ["inbatch push", *words])
    with suppress(SystemExit):
        command.main()
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err
    return captured.out, captured.err


def test_without_yes_nothing_is_sent(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = printed([str(run), NAME], monkeypatch, capsys)
    first, second, *files, last = out.splitlines()
    assert (
        first == f"repository: {hub.url}/{NAME} (private, for its owner; made if it is not there)"
    )
    assert second == f"files: 4, 6.9 KiB, from {run / 'model'}"
    assert [line.split()[0] for line in files] == SENT
    assert last == f"nothing is uploaded yet; to upload these: inbatch push {run} {NAME} --yes"
    assert hub.requests == []
    out, _ = printed([str(run), NAME, "--public"], monkeypatch, capsys)
    assert "(public, for everyone;" in out
    assert out.endswith(" --public --yes\n")


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("create", 401, "error: inbatch push has a token that the hub does not know: log in with"),
        ("create", 403, "error: REPO_ID='acme/offers' may not be written with this token: name a"),
        ("commit", 403, "error: REPO_ID='acme/offers' may not be written with this token: name a"),
        ("commit", 413, "error: REPO_ID='acme/offers' is refused by the hub (<redacted> is too"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    path: str,
    status: int,
    error: str,
    hub: Hub,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.fails[path] = (status, f"{TOKEN} is too large")
    _, said = printed([str(run), NAME, "--yes"], monkeypatch, capsys)
    assert said.startswith(error)
    assert said.count("\n") == 1


def test_no_token_no_network_and_offline(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"^127.0.0.1:9 cannot be reached \(.*\): check the net"):
        push(str(run), NAME, public=False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"^inbatch push has no token of the hub: log in with"):
        push(str(run), NAME, public=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"^HF_HUB_OFFLINE=1 is set: unset it"):
        push(str(run), NAME, public=False)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("README.md", f"# offers\n\n{TOKEN}\n", "holds what looks like an access token .* line 3"),
        ("config.json", '{"url": "https://me:secret@host/x"}', "holds what looks like .* line 1"),
        ("training_args.bin", "pickle", "is of no kind that belongs to a model"),
        ("onnx/rows.parquet", "rows", "is of no kind that belongs to a model"),
    ],
)
def test_what_must_not_be_published_is_refused(
    file: str, content: str, problem: str, hub: Hub, run: Path
) -> None:
    (run / "model" / file).write_text(content)
    with pytest.raises(ConfigError, match=problem) as raised:
        push(str(run), NAME, public=False)
    assert raised.value.key == str(run / "model" / file)
    assert TOKEN not in str(raised.value)
    assert hub.requests == []


def test_a_link_out_of_the_model_is_refused(run: Path) -> None:
    (run / "model" / "notes.txt").symlink_to(run / "train.log")
    with pytest.raises(ConfigError, match="is a link to a file outside of the model"):
        uploads(run / "model")


@pytest.mark.parametrize("name", ["offers", "acme/offers/x", "../offers", "acme/"])
def test_a_repository_has_an_owner_and_a_name(name: str, run: Path) -> None:
    with pytest.raises(ConfigError, match="is no owner/name"):
        push(str(run), name, public=False)


def test_as_a_user_starts_it(run: Path) -> None:
    with hub_server() as server:
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }
        line = [sys.executable, "-m", "inbatch", "push", str(run), NAME, "--yes"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"uploaded: {server.url}/{NAME}/commit/1\n")
    assert TOKEN not in done.stdout + done.stderr
    assert sorted(server.files[NAME]) == SENT
