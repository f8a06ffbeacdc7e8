"""The code of a card that runs as it stands: load the model, embed, compare."""

from __future__ import annotations

from collections.abc import Sequence

from inbatch.export import markdown as md
from inbatch.export.card_data import CardData, UsageExample, has_roles

_DEFAULT_USAGE = UsageExample(
    queries=("How long does a parcel take to Norway?",),
    documents=(
        "Shipping to Norway takes four to six working days.",
        "Returned parcels are refunded within two weeks.",
    ),
)


def usage_code(card: CardData) -> str:
    """Python that loads the model and compares the example's texts, with what it prints.

    Raises:
        ValueError: the example's similarities are not of the shape that the code prints.
    """
    example = card.usage or _DEFAULT_USAGE
    dimension = card.encoder["output_dimension"]
    lines = [
        "from sentence_transformers import SentenceTransformer",
        "",
        "# Load from the folder of this card",
        'model = SentenceTransformer(".")',
        "# Run inference",
    ]
    queries, documents = list(example.queries), list(example.documents)
    if has_roles(card.encoder):
        lines += _texts("queries", queries) + _texts("documents", documents)
        lines += [
            "query_embeddings = model.encode_query(queries)",
            "document_embeddings = model.encode_document(documents)",
            "print(query_embeddings.shape, document_embeddings.shape)",
            f"# ({len(queries)}, {dimension}) ({len(documents)}, {dimension})",
        ]
        operands, shape = "query_embeddings, document_embeddings", (len(queries), len(documents))
    else:
        lines += [
            *_texts("sentences", queries + documents),
            "embeddings = model.encode(sentences)",
            "print(embeddings.shape)",
            f"# ({len(queries + documents)}, {dimension})",
        ]
        operands, shape = "embeddings, embeddings", (len(queries + documents),) * 2
    lines += ["", "# Get the similarity scores for the embeddings"]
    lines += [
        f"similarities = model.similarity({operands})",
        *_printed(example.similarities, shape),
    ]
    return md.fenced("\n".join(lines), "python")


def _texts(name: str, texts: Sequence[str]) -> list[str]:
    return [f"{name} = [", *(f"    {md.clean(text)!r}," for text in texts), "]"]


def _printed(scores: Sequence[Sequence[float]] | None, shape: tuple[int, ...]) -> list[str]:
    """The call that prints the scores, and its output as torch prints a matrix."""
    if scores is None:
        return ["print(similarities.shape)", f"# torch.Size([{shape[0]}, {shape[1]}])"]
    if [len(row) for row in scores] != [shape[1]] * shape[0]:
        raise ValueError(f"usage.similarities must be {shape[0]} rows of {shape[1]} scores")
    cells = [[f"{score:.4f}" for score in row] for row in scores]
    width = max(len(cell) for row in cells for cell in row)
    rows = [f"[{', '.join(cell.rjust(width) for cell in row)}]" for row in cells]
    body = ",\n#         ".join(rows)
    return ["print(similarities)", f"# tensor([{body}])"]
