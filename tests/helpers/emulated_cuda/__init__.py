"""CUDA devices for a torch without CUDA, see `process.on_gpu`. Must not import torch, see preload.py."""
