"""`inbatch plan`: what one step would take on 1 to 1,024 ranks, before any of them is asked for.

`rates.py` holds how fast a device computes and ranks exchange bytes, measured or of a data sheet;
`step_time.py` the seconds of one step by part; `scaling.py` steps over numbers of ranks, what fits, and where
more ranks stop helping. All of these are functions of numbers. `show.py` prints and plots.
"""
