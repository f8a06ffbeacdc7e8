"""Recipes: chains of commands, such as train, mine, train again, distil, compare."""
