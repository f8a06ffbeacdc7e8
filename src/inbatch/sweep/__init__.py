"""Many runs of one configuration, and what they add up to.

A sweep is a folder; each of its points is a run in a folder inside, with a `point.json` beside the
run's own files. Everything is read back from these files, so that a report does not depend on what
has started the points, or where::

    run.py       one point, here or in a process of its own; a failure is written down, not raised
    points.py    point.json
    pruning.py   is a point so far behind the finished ones that it may stop?
    study.py     Optuna proposes the next points
    report.py    the folder -> sweep.csv, a table, plots/, the link `best`
"""
