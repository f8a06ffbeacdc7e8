"""The output directory of a run: where everything lies in it, whose it is, and what is resumed.

paths.py     every path, by what it holds
identity.py  the run that a directory belongs to
saved.py     its checkpoints: which are whole, which is the newest
model.py     its exported model, and the step that it is of
named.py     a run or a model as a user names it -> the directory of the model
"""
