"""Samplers: frozen dataclasses that plan the global batches of an epoch. See README.md."""

from inbatch.data.plan.samplers.group_by_label import GroupByLabel
from inbatch.data.plan.samplers.no_duplicates import NoDuplicates
from inbatch.data.plan.samplers.proportional import Proportional
from inbatch.data.plan.samplers.round_robin import RoundRobin
from inbatch.data.plan.samplers.shuffled import Shuffled
from inbatch.data.plan.samplers.temperature import Temperature
from inbatch.data.plan.samplers.weighted import Weighted

__all__ = [
    "GroupByLabel",
    "NoDuplicates",
    "Proportional",
    "RoundRobin",
    "Shuffled",
    "Temperature",
    "Weighted",
]
