"""Data sets, samplers, prompts and evaluators as settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from inbatch.migration.draft import Draft, number, word
from inbatch.migration.facts import DatasetFacts, EvaluatorFacts, Facts, Unknown

_SAMPLERS = "inbatch.data.plan.samplers."
#: Samplers of one source: the file here, and the class for sampler.within.
WITHIN = {
    "batch_sampler": ("batch", "Shuffled"),
    "no_duplicates": ("no_duplicates", "NoDuplicates"),
    "no_duplicates_hashed": ("no_duplicates", "NoDuplicates"),
    "group_by_label": ("group_by_label", "GroupByLabel"),
}
#: Samplers of several sources, by the same names here.
MIXERS = ("proportional", "round_robin")
_LABELS = {"label", "labels", "score", "scores"}
_BY_FIT = re.compile(r"sentence_\d+|text\d?|feature_\d+")
#: Evaluators, and the file of conf/evaluation.
EVALUATORS = {
    "TripletEvaluator": "triplet",
    "EmbeddingSimilarityEvaluator": "similarity",
    "BinaryClassificationEvaluator": "binary",
    "InformationRetrievalEvaluator": "retrieval",
    "RerankingEvaluator": "reranking",
}
#: Evaluators without a counterpart, and why.
REFUSED = {
    "LabelAccuracyEvaluator": "no loss here predicts classes",
    "MSEEvaluator": "compare the models: `inbatch compare`",
    "MSEEvaluatorFromDataFrame": "compare the models: `inbatch compare`",
    "ParaphraseMiningEvaluator": "pairs to retrieve (`evaluation=retrieval`) ask the same",
    "TranslationEvaluator": "pairs to retrieve (`evaluation=retrieval`) ask the same",
    "SequentialEvaluator": "its parts are evaluators by name",
}
_SIMILARITIES = ("cosine", "dot", "manhattan", "euclidean")


def set_data(draft: Draft, facts: Facts) -> None:
    """Set sources, the sampler and evaluation."""
    _set_sources(draft, facts.train)
    _set_sampler(draft, facts)
    _set_prompts(draft, facts)
    _set_evaluators(draft, facts)
    _set_times(draft, facts)


def names_of(sources: Sequence[DatasetFacts]) -> list[str]:
    """A name for each source that may stand in a key."""
    taken: list[str] = []
    for source in sources:
        base = re.sub(r"\W+", "_", (source.name or source.hub or "train").rpartition("/")[2]).strip(
            "_"
        )
        name, count = base or "train", 2
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        taken.append(name)
    return taken


def _set_sources(draft: Draft, sources: Sequence[DatasetFacts]) -> None:
    if not sources:
        draft.needs["data.train"] = "files to train on"
        return
    if len(sources) == 1 and sources[0].hub is None:
        draft.needs["data.train"] = f"files{_described(sources[0])}"
        roles = roles_of(sources[0].columns)
        if roles:
            draft.set("data.columns", roles)
        return
    for name, source in zip(names_of(sources), sources):
        key = f"data.train.{name}"
        if source.hub is None:
            draft.set(f"{key}.path", "???")
            draft.needs[f"{key}.path"] = f"files{_described(source)}"
        else:
            draft.set(f"{key}.hub", source.hub)
            for part in ("subset", "split", "revision"):
                value = getattr(source, part)
                if value is not None and (part, value) != ("split", "train"):
                    draft.set(f"{key}.{part}", value)
            if source.subset is None:
                draft.note(
                    f"{source.hub}: its subset, if it has several, is not told; set {key}.subset"
                )
        roles = roles_of(source.columns)
        if roles:
            draft.set(f"{key}.columns", roles)


def _described(source: DatasetFacts) -> str:
    size = f" of {source.size:,} rows" if source.size else ""
    return size + (f" with the columns {', '.join(source.columns)}" if source.columns else "")


def roles_of(columns: Sequence[str]) -> dict[str, Any]:
    """Roles of columns by their order, as sentence-transformers reads them; {} where they are found anyway.

    Names such as sentence_0 are those that `fit` has given to examples without names.
    """
    texts = [name for name in columns if name.lower() not in _LABELS]
    if not texts or all(_BY_FIT.fullmatch(name) for name in texts):
        return {}
    label = next((name for name in columns if name.lower() in _LABELS), None)
    roles: dict[str, Any] = {"query": texts[0]}
    if len(texts) > 1:
        roles["positive"] = texts[1]
    if len(texts) > 2:
        roles["negatives"] = texts[2:]
    if label is not None:
        roles["label"] = label
    return {} if _found_anyway(texts, label) else roles


def _found_anyway(texts: Sequence[str], label: str | None) -> bool:
    usual = (("query", "anchor"), ("positive", "pos"), ("negative", "neg"))
    plain = len(texts) in (2, 3) and all(name in known for name, known in zip(texts, usual))
    return plain and label is None


def _set_sampler(draft: Draft, facts: Facts) -> None:
    if not facts.arguments:
        return
    given = facts.arguments.get("batch_sampler", "batch_sampler")
    name = word(given)
    if isinstance(given, Unknown) or name not in WITHIN:
        shown = given.text if isinstance(given, Unknown) else given
        draft.note(f"batch_sampler={shown}: not known; sampler=no_duplicates takes its place")
        name = "no_duplicates"
    file, target = WITHIN[name]
    mixer = word(facts.arguments.get("multi_dataset_batch_sampler", "proportional"))
    if mixer not in MIXERS:
        draft.note(f"multi_dataset_batch_sampler={mixer}: not known; proportional takes its place")
        mixer = "proportional"
    if len(facts.train) > 1 or mixer == "round_robin":
        draft.choose("sampler", mixer)
        if target != "NoDuplicates":
            draft.set("sampler.within._target_", _SAMPLERS + target)
    elif file != "no_duplicates":
        draft.choose("sampler", file)


def _set_prompts(draft: Draft, facts: Facts) -> None:
    """Prompts of training alone: one for all texts, by column, by data set, or by both."""
    given = facts.arguments.get("prompts")
    if not given:
        return
    if isinstance(given, Unknown):
        draft.note(f"prompts: {given.text} is only known where the script runs")
        return
    if isinstance(given, str) and given.endswith(":"):
        draft.note(f"prompts={given}: a space at its end, if there was one, is not told")
    by_name = dict(zip((s.name for s in facts.train), zip(names_of(facts.train), facts.train)))
    alone = len(facts.train) < 2
    if isinstance(given, Mapping) and not alone and set(given) <= set(by_name):
        for name, prompts in given.items():
            key, source = by_name[name]
            draft.set(f"data.train.{key}.prompts", _by_column(prompts, source))
        return
    for key, source in by_name.values() or [("train", DatasetFacts())]:
        if (
            draft.get(f"data.train.{key}") is None
        ):  # the one source gets a name, for a key beside its path
            what = draft.needs.pop("data.train", "files")
            draft.set(f"data.train.{key}.path", "???")
            draft.needs[f"data.train.{key}.path"] = what
        draft.set(f"data.train.{key}.prompts", _by_column(given, source))


def _by_column(prompts: Any, source: DatasetFacts) -> dict[str, str]:
    if isinstance(prompts, Mapping):
        return {str(key): str(value) for key, value in prompts.items()}
    texts = [name for name in source.columns if name.lower() not in _LABELS]
    return dict.fromkeys(texts or ["query", "positive"], str(prompts))


def _set_evaluators(draft: Draft, facts: Facts) -> None:
    known = [found for found in facts.evaluators if found.kind in EVALUATORS]
    for found in facts.evaluators:
        if found.kind == "NanoBEIREvaluator":
            draft.set("data.eval.nano", "NanoBEIR")
        elif found.kind not in EVALUATORS:
            draft.note(
                f"{found.kind}: {REFUSED.get(found.kind, 'not an evaluator of sentence-transformers')}"
            )
    every = [(found, name) for found in known for name in found.names]
    if len(every) == 1:
        found, name = every[0]
        draft.choose("evaluation", EVALUATORS[found.kind])
        draft.set("evaluation.evaluators.eval.name", name)
        for key, value in _options(draft, found).items():
            draft.set(f"evaluation.evaluators.eval.{key}", value)
        draft.needs["data.eval"] = f"files of {name or 'the evaluation set'}"
        return
    if not every and facts.eval and not facts.evaluators:
        draft.note("evaluation loss: data.eval=FILE is measured by what its columns allow instead")
    shared = len({found.kind for found in known}) == 1 and all(_is_view(f, n) for f, n in every)
    for found, name in every:
        key = f"evaluation.evaluators.{re.sub(r'[^0-9A-Za-z_]+', '_', name) or found.kind}"
        draft.set(f"{key}._target_", f"inbatch.evaluation.{found.kind}")
        draft.set(f"{key}.path", "${data.eval}" if shared else "???")
        draft.set(f"{key}.name", name)
        dims = found.options.get("truncate_dim") or (_dims(name) if shared else None)
        if dims:
            draft.set(f"{key}.truncate_dim", int(dims))
        for option, value in _options(draft, found).items():
            draft.set(f"{key}.{option}", value)
        if not shared:
            draft.needs[f"{key}.path"] = f"files of {name or found.kind}"
    if shared and every:
        draft.needs["data.eval"] = "files of the evaluation set"


def _is_view(found: EvaluatorFacts, name: str) -> bool:
    return _dims(name) is not None or "truncate_dim" in found.options


def _dims(name: str) -> int | None:
    match = re.search(r"dim[_-]?(\d+)$|^(\d+)$", name)
    return int(match[1] or match[2]) if match else None


def _options(draft: Draft, found: EvaluatorFacts) -> dict[str, Any]:
    """Similarities by the names of metrics; older evaluators measured several."""
    named = {
        name for name in _SIMILARITIES for metric in found.metrics if name in metric.split("_")
    }
    ordered = [name for name in _SIMILARITIES if name in named]
    options: dict[str, Any] = {"similarity": ordered} if len(ordered) > 1 else {}
    for key, value in found.options.items():
        if key == "at_k" and found.kind == "RerankingEvaluator":
            options[key] = value
        elif key not in ("truncate_dim", "query_prompt", "corpus_prompt") and value not in (
            None,
            False,
        ):
            draft.note(f"{found.kind}.{key}={value}: not carried over")
        elif key.endswith("_prompt") and value:
            draft.note(f"{found.kind}.{key}={value}: prompts are those of encoder.prompts by role")
    return options


def _set_times(draft: Draft, facts: Facts) -> None:
    arguments = facts.arguments
    found = "steps" if _every(facts.evaluated_at) else "no"  # newer cards leave it out
    strategy = word(arguments.get("eval_strategy", arguments.get("evaluation_strategy", found)))
    if strategy == "steps":
        every = number(arguments.get("eval_steps", arguments.get("logging_steps")))
        every = every or _every(facts.evaluated_at)
        if every:
            draft.set("evaluation.every_steps", int(every))
        elif not facts.evaluated_at:  # which the log shows to be at the ends of epochs, as here
            draft.note("eval_steps: not told; set evaluation.every_steps")
    best = arguments.get("metric_for_best_model")
    if isinstance(best, str) and best.removeprefix("eval_") != "loss":
        draft.set("evaluation.best_metric", best.removeprefix("eval_"))
        if arguments.get("greater_is_better") is False:
            draft.set("evaluation.mode", "min")
    elif best:
        draft.note("metric_for_best_model=loss: the first evaluation set chooses by its metric")


def _every(evaluated: Sequence[tuple[float, int]]) -> int | None:
    """The distance of evaluations inside of epochs; those at the end of each come on their own."""
    inside = [step for epoch, step in evaluated if step and abs(epoch - round(epoch)) > 1e-9]
    if not inside:
        return None
    return min(inside) if all(step % min(inside) == 0 for step in inside) else None
