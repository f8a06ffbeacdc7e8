"""Many runs of one configuration, and what they add up to.

A sweep is a folder; each of its trials is a run in a folder inside, with a `trial.json` beside the
run's own files. Everything is read back from these files, so that a report does not depend on what
has started the trials, or where::

    run.py       one trial, here or in a process of its own; a failure is written down, not raised
    trials.py    trial.json
    pruning.py   is a trial so far behind the finished ones that it may stop?
    study.py     Optuna proposes the next trials
    report.py    the folder -> sweep.csv, a table, plots/, the link `best`
"""
