"""evaluation/: embeddings -> metrics, under the names of sentence-transformers.

An evaluator reads its rows when it is built, so that a wrong file is found before training, and
embeds them when it is called with an `encode` function::

    rows                    files -> texts and labels
    retrieval_rows, retrieval_spec, retrieval_folder, retrieval_files, plain_tables, retrieval_data
                            rows, or corpus, queries and judgements -> numbers for ids
    base                    the protocol; each distinct text is embedded once; the model's own similarity
    metrics, search         pure: embeddings -> scores -> numbers; exact top-k search in tiles
    embedding_similarity, triplet, binary_classification, information_retrieval, reranking
                            one evaluator each
    retrieval_hub, retrieval_sets
                            NanoBEIR, or a folder of retrieval sets -> each of them, and their mean
    choose                  picks one of them for a file
    quantise, views         the same evaluation in fewer dimensions and fewer bits
    bootstrap               pure: intervals of metrics, and of differences between models

Given the same embeddings they return the same numbers on any number of ranks: `encode` may say that it is of
one of several, which then share the queries of a search (shared_queries).
"""

from inbatch.evaluation.base import Encode, Evaluator, Examples, ShowsExamples
from inbatch.evaluation.binary_classification import BinaryClassificationEvaluator
from inbatch.evaluation.choose import evaluator_for
from inbatch.evaluation.embedding_similarity import EmbeddingSimilarityEvaluator
from inbatch.evaluation.information_retrieval import InformationRetrievalEvaluator
from inbatch.evaluation.reranking import RerankingEvaluator
from inbatch.evaluation.retrieval_sets import RetrievalSetsEvaluator
from inbatch.evaluation.triplet import TripletEvaluator

__all__ = [
    "BinaryClassificationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "Encode",
    "Evaluator",
    "Examples",
    "InformationRetrievalEvaluator",
    "RerankingEvaluator",
    "RetrievalSetsEvaluator",
    "ShowsExamples",
    "TripletEvaluator",
    "evaluator_for",
]
