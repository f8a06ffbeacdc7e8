"""evaluation/: embeddings -> metrics, under the names of sentence-transformers.

An evaluator reads its rows when it is built, so that a wrong file is found before training, and
embeds them when it is called with an `encode` function::

    rows                    files -> texts and labels
    retrieval_rows, retrieval_spec, retrieval_folder, retrieval_files, plain_tables, retrieval_data
                            rows, or corpus, queries and judgements -> numbers for ids
    base                    the protocol; each distinct text is embedded once; the model's own similarity
    metrics, search         pure: embeddings -> scores -> numbers; exact top-k search in tiles
    embedding_similarity, triplet, binary_classification, information_retrieval
                            one evaluator each
    choose                  picks one of them for a file

They do not depend on ranks: given the same embeddings they do the same work and return the same
numbers.
"""

from inbatch.evaluation.base import Encode, Evaluator, Examples, ShowsExamples
from inbatch.evaluation.binary_classification import BinaryClassificationEvaluator
from inbatch.evaluation.choose import evaluator_for
from inbatch.evaluation.embedding_similarity import EmbeddingSimilarityEvaluator
from inbatch.evaluation.information_retrieval import InformationRetrievalEvaluator
from inbatch.evaluation.triplet import TripletEvaluator

__all__ = [
    "BinaryClassificationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "Encode",
    "Evaluator",
    "Examples",
    "InformationRetrievalEvaluator",
    "ShowsExamples",
    "TripletEvaluator",
    "evaluator_for",
]
