"""Time per phase, on the host and on a device that lags behind it."""

from __future__ import annotations

import pytest

from inbatch.step.timer import HostMark, StepTimer


class Lagging:
    """Marks of a device that takes a second from each to the next, and is past the first `done`."""

    made = 0
    done = 0

    def __init__(self) -> None:
        self.place = Lagging.made
        Lagging.made += 1

    def is_past(self) -> bool:
        return self.place < Lagging.done

    def seconds_until(self, later: Lagging) -> float:
        return float(later.place - self.place)


@pytest.fixture(autouse=True)
def _start() -> None:
    Lagging.made = Lagging.done = 0


def step(phases: StepTimer) -> None:
    """Marks: embed 0-1, loss 2-5 around gather 3-4."""
    with phases.measure("embed"):
        pass
    with phases.measure("loss"), phases.measure("gather"):
        pass


def test_phases_inside_are_told_apart() -> None:
    phases = StepTimer(Lagging)
    step(phases)
    Lagging.done = 6
    assert phases.pop() == {"embed": 1.0, "gather": 1.0, "loss": 2.0}
    assert phases.pop() == {}


def test_what_the_device_has_not_done_is_counted_later() -> None:
    phases, total = StepTimer(Lagging), dict.fromkeys(("embed", "gather", "loss"), 0.0)
    for done in (2, 8, 18):
        step(phases)
        Lagging.done = done
        for name, seconds in phases.pop().items():
            total[name] += seconds
    assert total == {"embed": 3.0, "gather": 3.0, "loss": 6.0}


def test_a_phase_that_fails_is_left_out() -> None:
    phases = StepTimer(Lagging)
    with pytest.raises(ValueError, match="broken"), phases.measure("embed"):
        raise ValueError("broken")
    step(phases)
    Lagging.done = 100
    assert phases.pop() == {"embed": 1.0, "gather": 1.0, "loss": 2.0}


def test_on_the_host() -> None:
    phases = StepTimer()
    with phases.measure("embed"):
        sum(range(100_000))
    (seconds,) = phases.pop().values()
    assert 1e-5 < seconds < 10
    assert HostMark().is_past()
