"""Softmax cross-entropy whose score matrix is never held."""
