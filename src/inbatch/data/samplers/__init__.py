"""Samplers: frozen dataclasses that plan the global batches of an epoch. See README.md."""

from inbatch.data.samplers.no_duplicates import NoDuplicates
from inbatch.data.samplers.proportional import Proportional
from inbatch.data.samplers.round_robin import RoundRobin
from inbatch.data.samplers.shuffled import Shuffled
from inbatch.data.samplers.temperature import Temperature
from inbatch.data.samplers.weighted import Weighted

__all__ = ["NoDuplicates", "Proportional", "RoundRobin", "Shuffled", "Temperature", "Weighted"]
