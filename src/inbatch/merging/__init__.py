"""Merges models of one architecture into one: mean, slerp, greedy soup (README.md).

inputs.py     what the user names -> ingredients: models, checkpoints, runs, the best of a sweep
weights.py    the tensors of an ingredient, read one by one; a model's file, written one by one
compare.py    whether two ingredients can be merged, and what else differs
combine.py    the formulas, on one tensor of each
judge.py      what models are measured by
soup.py       which ingredients a greedy soup keeps
merge.py      all of it: ingredients -> a model's directory with its card
"""
