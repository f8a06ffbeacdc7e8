"""The output directory of a run: where everything lies in it, and whose it is.

paths.py     every path, by what it holds
identity.py  the run that a directory belongs to
"""
