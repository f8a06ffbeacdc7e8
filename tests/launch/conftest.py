"""One training file for all launches."""

from __future__ import annotations

import pytest

from helpers.runs import write_triplets


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a run of eight steps."""
    path = write_triplets(tmp_path_factory.mktemp("data") / "triplets.jsonl", 60)
    data = [f"data.train.triplets={path}", "global_batch_size=8"]
    return [*data, "trainer.max_epochs=5", "trainer.max_steps=8"]
