"""`inbatch push`: the model of a run, or a model, to the Hugging Face hub; said first, done when asked for.

The token is the hub's own: of its login, or of HF_TOKEN. It is handed from one function of huggingface_hub to
another, and neither printed nor written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import get_token

from inbatch import __version__
from inbatch.errors import ConfigError
from inbatch.export.redaction import redact
from inbatch.export.upload import Upload, uploads
from inbatch.folder.named import find_model

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LOGIN = "log in with hf auth login, or set HF_TOKEN"


def plan_push(model: str, repository: str, *, public: bool) -> list[str]:
    """What `push` would upload and where, in lines. Nothing is sent.

    Raises:
        ConfigError: there is no model here, a file that must not be published, or no name of a repository.
    """
    directory, files = _find(model, repository)
    total = sum(file.num_bytes for file in files)
    seen_by = "public, for everyone" if public else "private, for its owner"
    return [
        f"repository: {constants.ENDPOINT}/{repository} ({seen_by}; made if it is not there)",
        f"files: {len(files)}, {_size(total)}, from {directory}",
        *(f"  {file.name}  {_size(file.num_bytes)}" for file in files),
    ]


def push(model: str, repository: str, *, public: bool, say: Callable[[str], None] = print) -> str:
    """Upload a model's files in one commit, which adds and replaces files and removes none.

    Args:
        model: a model's directory or a run's folder.
        repository: ``owner/name``; made where it is not there.
        public: whether everyone sees it; otherwise its owner alone does.
        say: is told of files that the repository keeps from before.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: see `plan_push`; there is no token or no right, the hub cannot be reached or refuses, or
            the repository is public and `public` is not set.
    """
    _, files = _find(model, repository)
    if constants.is_offline_mode():
        raise ConfigError("HF_HUB_OFFLINE", "is set", "unset it, and TRANSFORMERS_OFFLINE", value=1)
    if get_token() is None:
        raise ConfigError("inbatch push", "has no token of the hub", _LOGIN)
    hub = HfApi()
    with _errors_of_the_hub(repository):
        hub.create_repo(repository, private=not public, exist_ok=True)
        there = hub.model_info(repository)
        if not public and there.private is False:
            fix = "add --public, or name another repository"
            raise ConfigError("REPO_ID", "is a public repository", fix, value=repository)
        commit = hub.create_commit(
            repository,
            [CommitOperationAdd(file.name, file.path) for file in files],
            commit_message=f"Model of inbatch {__version__}",
        )
    for name in _kept([each.rfilename for each in there.siblings or ()], files):
        say(f"kept from before: {name}")
    return str(commit.commit_url)


def _find(model: str, repository: str) -> tuple[Path, list[Upload]]:
    """The directory of a model, and its files."""
    if not _REPOSITORY.fullmatch(repository):
        fix = "give the name of a user or an organization and that of the model"
        raise ConfigError("REPO_ID", "is no owner/name", fix, value=repository)
    if not Path(model).expanduser().is_dir():
        fix = "give a model's directory, or the output_dir of a run"
        raise ConfigError("MODEL_OR_RUN", "is no directory here", fix, value=model)
    directory = find_model(model)
    return directory, uploads(directory)


def _kept(before: Sequence[str], files: Sequence[Upload]) -> list[str]:
    """Files of a repository that this upload leaves as they are, and that may be of other weights."""
    return sorted({*before} - {file.name for file in files} - {".gitattributes"})


@contextmanager
def _errors_of_the_hub(repository: str) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        raise _refused(error, repository) from None
    except (HTTPError, OfflineModeIsEnabled) as error:
        host = urlsplit(constants.ENDPOINT).netloc
        cause = redact(" ".join(str(error).split())) or type(error).__name__
        raise ConfigError(
            host, f"cannot be reached ({cause})", "check the network, a proxy, and HF_ENDPOINT"
        ) from None


def _refused(error: HfHubHTTPError, repository: str) -> ConfigError:
    """What the hub has answered, as the user's mistake that it mostly is."""
    status = error.response.status_code
    if status == 401:
        return ConfigError("inbatch push", "has a token that the hub does not know", _LOGIN)
    if status == 403:
        fix = "name a repository of your own, or take a token with the right to write"
        return ConfigError("REPO_ID", "may not be written with this token", fix, value=repository)
    said = redact(error.server_message or f"HTTP {status}").rstrip(".")
    return ConfigError(
        "REPO_ID",
        f"is refused by the hub ({said})",
        "do as it says, or try again later",
        value=repository,
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**10:,.1f} KiB"
