"""Sweeps: many runs of one configuration, and a report on them.

A sweep is a folder; each of its trials is a run in a folder inside, with a `trial.json` beside the
run's own files. Everything is read back from these files, so that a report does not depend on
how or where the trials were started::

    run.py       one trial, here or in a new process; a failure is recorded, not raised
    trials.py    trial.json
    folders.py   which folder a trial has
    pruning.py   stops a trial that is behind the others
    study.py     Optuna proposes the next trials
    report.py    the folder -> sweep.csv, a table, plots/, the link `best`
"""
