"""inbatch: exact, fast, distributed in-batch-negative training of text bi-encoders.

The life of a batch, which is also the order to read the code in::

    data/        rows in shards -> a plan of global batches -> this rank's slice -> tokens -> Batch
    encoder/     chunk of tokens -> embeddings [n, D]
    gather/      local embeddings -> the global batch; the only collectives of a step
    losses/      pure functions of embeddings -> mean over the rows this rank owns
    gradcache/   embed, loss, gradients of the embeddings, re-embed chunk by chunk, backward
    strategies/  ddp, fsdp, deepspeed: accumulate locally, reduce once
    optim/       parameter groups, schedules
    export/      sentence-transformers directory, model card, plots

`module.py`, `datamodule.py` and `train.py` wire them; `evaluation/` and `callbacks/` watch;
`guide/` holds the frozen guide's embeddings.
"""

__version__ = "0.1.0"
