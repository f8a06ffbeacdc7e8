"""The folder of a trial inside that of its sweep.

Hydra numbers the jobs of a command from 0. In a sweep's folder that is used again, with other values, a
finished trial's number would so go to another trial. Therefore a trial is recognised by its overrides: it
has the folder that it had before, or takes the first free number from Hydra's on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from inbatch.sweep.trials import find_trials, settings_of

OWNERS = ".trials"  # a link for each number, to a digest of the overrides that have it


def trial_folder(sweep: Path, number: int, overrides: Sequence[str]) -> str:
    """Return the name of a trial's folder, and make it.

    Several processes may ask at once, for several trials or for one, as its ranks do. A link is made by one
    process only, on shared file systems too, and the others read there whose the number is.

    Args:
        sweep: folder of the sweep.
        number: the number that the trial would like to have.
        overrides: what it is recognised by.
    """
    settings = settings_of(overrides)
    for folder, trial in find_trials(sweep).items():
        if trial.settings == settings:
            return str(folder.relative_to(sweep))
    owners = sweep / OWNERS
    owners.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    folders = {path.name for path in sweep.iterdir()}
    links = {
        path.name: str(path.readlink()) for path in owners.iterdir()
    }  # made before the folders
    own = [name for name, owner in links.items() if owner == digest]
    free = (str(n) for n in count(number) if str(n) not in folders - links.keys())
    name = own[0] if own else next(name for name in free if _owner(owners / name, digest) == digest)
    (sweep / name).mkdir(exist_ok=True)
    return name


def _owner(link: Path, digest: str) -> str:
    """Whose a number is: this trial's, if it was free."""
    try:
        link.symlink_to(digest)
    except FileExistsError:
        return str(link.readlink())
    return digest
