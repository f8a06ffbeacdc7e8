"""What a run has cost: over ranks, rows, starts; energy where a device tells it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers.runs import metrics, run_train, write_triplets
from helpers.watched_run import WatchedModule, fit
from inbatch.callbacks.cost import CostMeter, in_words_of_cost
from inbatch.device import energy

ROWS = 32  # triplets


def test_a_run_and_its_card(tmp_path: Path) -> None:
    rows = write_triplets(tmp_path / "triplets.jsonl", ROWS)
    given = [f"data.train={rows}", f"data.eval={rows}", "global_batch_size=8"]
    folder = run_train(*given, "trainer.max_epochs=1", f"output_dir={tmp_path / 'run'}")
    first = json.loads((folder / "cost.json").read_text())
    assert first["num_texts"] == 3 * ROWS
    assert first["num_tokens"] > 3 * ROWS
    assert first["device_hours"] > 0
    assert first["kwh"] is None
    # A start that was killed before its next checkpoint has cost an hour.
    spent = {**first, "device_hours": first["device_hours"] + 1}
    (folder / "cost.json").write_text(json.dumps(spent))
    run_train(*given, "trainer.max_epochs=2", f"output_dir={tmp_path / 'run'}")
    second = json.loads((folder / "cost.json").read_text())
    assert second["num_texts"] == 2 * 3 * ROWS
    assert second["num_tokens"] == 2 * first["num_tokens"]
    assert 1 < second["device_hours"] - first["device_hours"] < 1.5
    row = metrics(folder)[-2]
    assert row["perf/texts_seen"] == second["num_texts"]
    assert 1 < row["perf/device_hours"] <= second["device_hours"]
    assert "perf/energy_kwh" not in row
    card = (folder / "model" / "README.md").read_text()
    section = card.split("### Environmental Impact\n")[1].split("\n\n")[0].splitlines()
    assert section[0] == "- **Energy Consumed**: not measured"
    assert section[2:4] == ["- **Texts Seen**: 192", f"- **Tokens Seen**: {second['num_tokens']:,}"]
    assert "per Device-Hour**: 0." in section[4]
    # A finished run, started again, costs nothing more and says the same.
    run_train(*given, "trainer.max_epochs=2", f"output_dir={tmp_path / 'run'}")
    assert section[1:4] == card.split("### Environmental Impact\n")[1].splitlines()[1:4]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_energy_is_what_the_counter_has_gone_up_by(tmp_path: Path) -> None:
    counter = iter(range(1_000_000, 10**9, 360_000))  # joules: 0.1 kWh from one reading to the next
    meter = CostMeter(tmp_path / "cost.json", energy=lambda device: float(next(counter)))
    fit(WatchedModule(total_steps=4), meter)
    assert meter.cost.kwh == pytest.approx(0.1)
    assert meter.cost.num_texts == 12 * 16
    again = CostMeter(tmp_path / "cost.json", energy=lambda device: float(next(counter)))
    fit(WatchedModule(total_steps=4), again)
    assert again.cost.kwh == pytest.approx(0.2)
    assert again.cost.device_hours > meter.cost.device_hours
    assert "0.200 kWh" in in_words_of_cost(again.cost)
    without = CostMeter(tmp_path / "cost.json", energy=lambda device: None)
    fit(WatchedModule(total_steps=4), without)
    assert without.cost.kwh is None


def test_the_counter_of_a_gpu_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def handle_of(uuid: str) -> str:
        if uuid != "GPU-1234":
            raise NVMLError
        return uuid

    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=handle_of,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 2_500,  # millijoules
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    monkeypatch.setattr(energy, "find_spec", lambda name: nvml)
    uuids = iter(["1234", "5678"])
    properties = lambda device: SimpleNamespace(uuid=next(uuids))  # noqa: E731
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    device = torch.device("cuda", 0)
    assert energy.used_joules(device) == 2.5
    assert energy.used_joules(device) is None  # a part of a GPU
    assert energy.used_joules(torch.device("cpu")) is None
