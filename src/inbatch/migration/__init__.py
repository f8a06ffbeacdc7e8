"""Runs of sentence-transformers, read from what they have left, as experiments of inbatch."""

from inbatch.migration.experiment import Experiment, make_experiment
from inbatch.migration.source import read_source

__all__ = ["Experiment", "make_experiment", "read_source"]
