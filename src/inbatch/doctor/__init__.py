"""`inbatch doctor`: what holds on this machine or cluster, before anything is trained on it.

`checks/` holds pure checks, each a function of the `Machine` that yields `Result`s; `checks/table.py` lists
them. `examine.py` runs them on all ranks in step, `report.py` makes one finding of what the ranks found,
`text.py` prints. `board.py` is where ranks leave their results, and `watch.py` ends a check that hangs.
"""
