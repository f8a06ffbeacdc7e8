"""Hard negatives for training rows, from their own documents or a larger corpus (README.md).

training_set   rows -> distinct queries and documents, and which are known to match
embedded       their embeddings, memory-mapped: computed here, or stored by `inbatch embed`
search         the best documents of a block of queries, exactly; approximate: by faiss
filters        which of these may be negatives
choice         which of these become negatives
blocks         the three together for a block of queries, which is written whole
rows, report   what is written in the end
run            all of it over any number of ranks
"""
