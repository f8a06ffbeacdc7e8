"""Modules of sentence-transformers as options of an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inbatch.migration.draft import Draft, word
from inbatch.migration.facts import Call, Facts, Unknown

_POOLINGS = {
    "cls": "cls",
    "cls_token": "cls",
    "max": "max",
    "max_tokens": "max",
    "mean": "mean",
    "mean_tokens": "mean",
    "mean_sqrt_len": "mean_sqrt_len",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "weightedmean_tokens": "weighted_mean",
    "lasttoken": "last_token",
}
#: Modules, and the option of an encoder that each is here.
MODULES = {
    "`Transformer`": "`encoder.model`, `encoder.max_length`",
    "`Pooling`": "`encoder.pooling`, `encoder.include_prompt`",
    "`Dense`": "`encoder.dense`, one layer behind the pooling; several are read in `encoder.model`",
    "`Normalize`": "`encoder.normalize`",
    "`LayerNorm`, `Dropout`, `CNN`, `WeightedLayerPooling`, `Dense` of tokens": "those of `encoder.model`; "
    "no key makes new ones",
    "`StaticEmbedding`": "`encoder=static`, or `encoder.model` of a saved one",
}
#: Modules that encoders here do not have, and why.
REFUSED = {
    "BoW": "a bag of words has nothing to train",
    "CLIPModel": "images are not embedded here",
    "LSTM": "sentence-transformers runs it behind `WordEmbeddings` alone: `Transformer` tells it no lengths",
    "MultiVectorMask": "one vector a text",
    "Router": "both towers of a bi-encoder are one model here",
    "Asym": "both towers of a bi-encoder are one model here",
    "WordEmbeddings": "its tokenizer tries each word as it is, without punctuation and in lower case, which "
    "no `tokenizer.json` can say; `encoder=static` trains vectors of tokens",
    "WordWeights": "`encoder.weights=zipf` of a static encoder weighs tokens",
}


def set_encoder(draft: Draft, facts: Facts) -> None:
    """Set the model that training starts from, and what stands behind its transformer."""
    kinds = [module.name for module in facts.modules]
    static = "StaticEmbedding" in kinds
    if facts.base_model:
        draft.set("encoder.model", facts.base_model)
        if facts.base_revision:
            draft.set("encoder.revision", facts.base_revision)
    else:
        draft.set("encoder.model", "???")
        draft.needs["encoder.model"] = f"the model that training starts from{_layout(facts)}"
    if static:
        _set_static(draft, facts)
        return
    if facts.max_length:
        draft.set("encoder.max_length", facts.max_length)
    if facts.similarity not in (None, "cosine"):
        draft.set("encoder.similarity", facts.similarity)
    if facts.prompts:
        draft.set("encoder.prompts", dict(facts.prompts))
    if facts.default_prompt:
        draft.set("encoder.default_prompt_name", facts.default_prompt)
    shown = any(str(m.options.get("architecture", "")).startswith("Peft") for m in facts.modules)
    if facts.adapter is not None or shown:
        _set_adapter(draft, facts.adapter or {})
    if not kinds:
        return
    _set_pooling(draft, facts)
    draft.set("encoder.normalize", "Normalize" in kinds)
    _set_dense(draft, [module for module in facts.modules if module.name == "Dense"])
    for kind in dict.fromkeys(kinds):
        if kind in ("LayerNorm", "Dropout", "CNN", "WeightedLayerPooling"):
            draft.note(f"module {kind}: kept where encoder.model has it; no key makes a new one")
        elif kind not in ("Transformer", "Pooling", "Dense", "Normalize"):
            draft.note(
                f"module {kind}: {REFUSED.get(kind, 'not a module of sentence-transformers')}"
            )
    for module in facts.modules:
        if module.name == "Transformer" and module.get("do_lower_case") is True:
            draft.note(
                "Transformer.do_lower_case: texts are as the tokenizer takes them; lower them in the data"
            )


def _layout(facts: Facts) -> str:
    """What is known of a model without a name."""
    first = facts.modules[0] if facts.modules else None
    if first is None:
        return ""
    dims = dimension_of(facts.modules)
    architecture = first.options.get("architecture", first.name)
    return f": {architecture}" + (f" of {dims} dimensions" if dims else "")


def dimension_of(modules: Sequence[Call]) -> Any:
    """The size of token embeddings, as the modules behind a transformer tell it; None where none does."""
    for module in modules[1:]:
        for key in ("word_embedding_dimension", "embedding_dimension"):
            if key in module.options:
                return module.options[key]
    return None


def _set_static(draft: Draft, facts: Facts) -> None:
    """A saved static encoder is read as such; a new one has its vectors from the model that is named."""
    if "Normalize" in [module.name for module in facts.modules]:
        draft.note(
            "module Normalize behind StaticEmbedding: losses and search by cosine do the same"
        )
    if draft.get("encoder.model") == "???":
        draft.needs["encoder.model"] = (
            "a directory of StaticEmbedding, or encoder=static with encoder.tokenizer and encoder.dimension"
        )


def _set_pooling(draft: Draft, facts: Facts) -> None:
    pooling = next((module for module in facts.modules if module.name == "Pooling"), None)
    if pooling is None:
        return
    options = dict(pooling.options)
    if (mode := pooling.get("pooling_mode", 1)) is not None:
        modes = mode if isinstance(mode, list | tuple) else [mode]
    else:
        prefix = "pooling_mode_"
        modes = [
            key.removeprefix(prefix)
            for key, on in options.items()
            if key.startswith(prefix) and on is True
        ]
        if not modes and not any(key.startswith(prefix) for key in options):
            modes = ["mean"]  # of a Pooling without arguments
    names = [_POOLINGS.get(word(mode)) for mode in modes]
    if not names or None in names:
        draft.note(f"Pooling: modes {', '.join(map(str, modes)) or 'none'} are not known")
        return
    draft.set("encoder.pooling", names[0] if len(names) == 1 else names)
    if options.get("include_prompt") is False:
        draft.set("encoder.include_prompt", False)


def _set_dense(draft: Draft, layers: list[Call]) -> None:
    if not layers:
        return
    if len(layers) > 1:
        draft.note(
            f"{len(layers)} Dense modules: one is taken here, the last; its input is the pooled embedding"
        )
    layer = layers[-1]
    given = layer.get("activation_function", 3)
    activation = given.name if isinstance(given, Call) else given
    name = (
        str(activation or "torch.nn.modules.activation.Tanh").rpartition(".")[2].removesuffix("()")
    )
    width = layer.get("out_features", 1)
    if width is None or isinstance(width, Unknown):
        draft.note("Dense.out_features: not told")
        return
    dense: dict[str, Any] = {"out_features": width, "activation": name}
    bias = layer.get("bias", 2)
    dense["bias"] = True if bias is None else bias
    if layer.options.get("use_residual") is True:
        dense["residual"] = True
    draft.set("encoder.dense", dense, "a new layer; remove it where encoder.model has it already")
    for key in ("module_input_name", "module_output_name"):
        value = layer.options.get(key)
        if value not in (None, False, "sentence_embedding"):
            draft.note(f"Dense.{key}={value}: a dense layer works on the pooled embedding here")


def _set_adapter(draft: Draft, given: Mapping[str, Any]) -> None:
    """LoraConfig of peft; empty where a card shows that there was one and no more."""
    names = {
        "r": "rank",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
        "target_modules": "targets",
    }
    usual = {"rank": 8, "alpha": 8, "dropout": 0.0}
    if not given:
        draft.set("encoder.adapter", "lora")
        draft.note(
            "LoRA: its rank, scale and targets are not told; those of encoder.adapter=lora are taken"
        )
        return
    adapter: dict[str, Any] = dict(usual)
    for key, name in names.items():
        if given.get(key) is not None and not isinstance(given[key], Unknown):
            adapter[name] = given[key]
    targets = adapter.get("targets")
    if targets == "all-linear":
        del adapter["targets"]
    elif isinstance(targets, str):
        draft.note(
            f"LoraConfig.target_modules={targets}: a pattern; name the ends of layers in targets"
        )
        del adapter["targets"]
    draft.set("encoder.adapter", adapter)
    harmless = {
        *(
            "task_type",
            "peft_type",
            "inference_mode",
            "base_model_name_or_path",
            "revision",
            "auto_mapping",
        ),
        *(
            "fan_in_fan_out",
            "init_lora_weights",
            "layer_replication",
            "peft_version",
            "runtime_config",
        ),
    }
    for key, value in given.items():
        if key in names or key in harmless or value in (None, False, "none", {}, []):
            continue
        draft.note(f"LoraConfig.{key}={value}: not offered")
