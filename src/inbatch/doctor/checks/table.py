"""All checks, in the order in which they run; a new one is a function in this list."""

from __future__ import annotations

from inbatch.doctor.checks.attention import attention, packed_encoder
from inbatch.doctor.checks.collectives import collectives, process_group
from inbatch.doctor.checks.device import bfloat16, device, memory
from inbatch.doctor.checks.losses import every_loss, softmax
from inbatch.doctor.checks.rates import memory_rate, products
from inbatch.doctor.checks.replay import replay
from inbatch.doctor.checks.step import training_step
from inbatch.doctor.checks.storage import same_folder, storage
from inbatch.doctor.checks.versions import arrival, versions
from inbatch.doctor.result import Check

CHECKS = (
    Check("Versions", arrival),  # first, so that a rank that is not there is named at once
    Check("Versions", versions),
    Check("Device", device),
    Check("Device", bfloat16),
    Check("Device", memory),
    Check("Ranks", process_group),
    Check("Ranks", collectives),
    Check("Storage", storage),
    Check("Storage", same_folder),
    Check("Rates", products),
    Check("Rates", memory_rate),
    Check("Correctness against float64", softmax),
    Check("Correctness against float64", every_loss),
    Check("Correctness against float64", attention),
    Check("Correctness against float64", packed_encoder),
    Check("Repeats", replay),
    Check("Step against one process with the global batch", training_step),
)
