"""Build an encoder from a configuration: the target of conf/encoder/*.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from inbatch.encoder.adapter import add_adapter, choose_adapter
from inbatch.encoder.adapter_files import ADAPTER_CONFIG, base_of
from inbatch.encoder.backbone import (
    Backbone,
    LoadOptions,
    check_tokenizer,
    enable_gradient_checkpointing,
    pretrained_backbone,
    random_backbone,
)
from inbatch.encoder.direction import agree_on_direction, set_direction
from inbatch.encoder.end_token import add_end_token
from inbatch.encoder.linear import use_fast_products
from inbatch.encoder.model import Encoder
from inbatch.encoder.options import (
    choose_max_length,
    choose_pooling,
    freeze_parameters,
    given,
    make_head,
)
from inbatch.encoder.packing import prepare_packing
from inbatch.encoder.padding_check import check_padding
from inbatch.encoder.resolve import resolve_directory
from inbatch.encoder.st_read import MODULES_FILE, SavedEncoder, read_saved_encoder
from inbatch.encoder.static_files import is_static
from inbatch.encoder.static_load import load_static
from inbatch.encoder.token_layers import token_width
from inbatch.encoder.tokenize import (
    TextTokenizer,
    check_takes_tokenizer,
    load_tokenizer,
    train_wordpiece,
)
from inbatch.encoder.transformer import TransformerEncoder
from inbatch.encoder.transformer_config import make_config, read_config
from inbatch.errors import ConfigError

TextStream = Callable[[], Iterable[str]]


def build_encoder(
    model: str | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    tokenizer: str | Mapping[str, Any] | None = None,
    pretrained: bool = True,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attention: str = "auto",
    dtype: str = "float32",
    max_length: int | None = None,
    pooling: str | Sequence[str] | None = None,
    include_prompt: bool | None = None,
    bidirectional: bool | None = None,
    end_token: Literal[True] | None = None,
    dense: Mapping[str, Any] | Literal[False] | None = None,
    normalize: bool | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    similarity: str | None = None,
    truncate_dim: int | None = None,
    gradient_checkpointing: bool = False,
    freeze: Sequence[str] = (),
    adapter: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] | None = None,
    texts: TextStream | None = None,
) -> Encoder:
    """Build an encoder from a saved model (`model`), or with random weights from a `config`.

    None means "as found in the directory" for a sentence-transformers model. Otherwise it means
    mean pooling (last token for a causal language model) with the prompt, no further layer, no
    prompt, cosine, and as many tokens as tokenizer and transformer allow. Random weights come from
    torch's global generator: seed it alike on all ranks.

    Args:
        model: a directory, ``pkg://package/directory`` or a hub name; sentence-transformers or plain
            transformers layout.
        config: the transformer alone, ``{model_type: bert, hidden_size: 128, ...}``; the size of
            the vocabulary and the special ids follow the tokenizer.
        tokenizer: a directory or hub name, default the model's own; with `config` also
            ``{train: {vocab_size: 8000, lowercase: true, min_frequency: 2}}``, learned from
            `texts`.
        pretrained: false takes everything but the weights from `model`.
        revision: branch, tag or commit of a hub name.
        trust_remote_code: run Python code that the model brings along.
        attention: auto computes without padding in bf16 or fp16 on a GPU for architectures that support
            it, and otherwise by sdpa, or by eager where there is no sdpa; varlen computes without padding
            everywhere, a CPU included, or fails; sdpa, eager and other implementations of transformers
            compute with padding.
        dtype: of the parameters: float32, bfloat16, float16, or auto (as stored).
        max_length: tokens a text keeps, prompt and special tokens included.
        pooling: one of cls, max, mean, mean_sqrt_len, weighted_mean and last_token, the dotted name
            of another function (see `pooling.Pooling`; sentence-transformers cannot load such a model), or
            several to concatenate.
        include_prompt: pool the prompt's tokens too.
        bidirectional: whether tokens of a decoder see later ones, as those of encoders do; None is what the
            model's configuration says. Mean pooling is the default of those that do.
        end_token: true ends every text with the tokenizer's eos token, within `max_length`, where the
            tokenizer does not do so itself; None is as the tokenizer does.
        dense: ``{out_features: 512, activation: Tanh, bias: true, residual: false}`` after pooling;
            false for none.
        normalize: scale embeddings to length one, after all other layers.
        prompts: texts to put in front by name, such as ``{query: "query: ", document: "passage: "}``;
            added to those found.
        default_prompt_name: name of the prompt for texts without a role.
        similarity: cosine, dot, euclidean or manhattan, saved with the model.
        truncate_dim: leading dimensions that evaluation and users of the saved model keep.
        gradient_checkpointing: recompute layers in the backward pass to save memory.
        freeze: regular expressions; parameters with a match in their name do not train.
        adapter: lora, ``{rank: 16, alpha: 32, dropout: 0.05, targets: [query, value]}`` (see `adapter.LoRA`),
            or the directory of an adapter to go on from: the transformer is frozen, and small matrices
            beside its linear layers train. A list names directories of adapters that stay as they are, and
            last the one that trains. None is what the directory of `model` holds.
        texts: gives the training texts, for ``tokenizer: {train: ...}``.

    Raises:
        ConfigError: under the argument that is wrong.
    """
    options = LoadOptions(attention=attention, dtype=dtype, trust_remote_code=trust_remote_code)
    if model is not None and config is None:
        _check_trains_no_tokenizer(model, tokenizer)
        directory = resolve_directory(model, revision=revision, weights=pretrained)
        if is_static(directory):
            return load_static(
                resolve_directory(model, revision=revision),
                base_model=model,
                pretrained=pretrained,
                max_length=max_length,
                dense=dense,
                normalize=normalize,
                prompts=prompts,
                default_prompt_name=default_prompt_name,
                similarity=similarity,
                truncate_dim=truncate_dim,
                freeze=freeze,
                of_transformers={
                    "tokenizer": tokenizer is not None,
                    "attention": attention != "auto",
                    "dtype": dtype not in ("float32", "auto"),
                    "pooling": pooling not in (None, "mean", ["mean"]),
                    "include_prompt": include_prompt is False,
                    "bidirectional": bidirectional is not None,
                    "end_token": end_token is not None,
                    "gradient_checkpointing": gradient_checkpointing,
                    "adapter": adapter is not None,
                },
            )
        loaded = _from_saved(model, directory, tokenizer, pretrained, options, bidirectional)
    elif config is not None and model is None:
        loaded = _from_config(config, tokenizer, texts, options, bidirectional)
    else:
        raise ConfigError(
            "model",
            f"does not go with config={config!r}",
            "give one of them, model for a saved model or config for random weights",
            value=model,
        )
    saved, backbone, hf = loaded.saved, loaded.backbone, loaded.tokenizer
    transformer = backbone.model
    check_tokenizer(transformer, hf)
    if end_token:
        add_end_token(hf, transformer.config)
    if gradient_checkpointing:
        enable_gradient_checkpointing(transformer)
    packing = prepare_packing(transformer, attention)
    agree_on_direction(transformer, bidirectional)
    check_padding(transformer, padding_side=hf.padding_side, pad_id=hf.pad_token_id or 0)
    asked = choose_adapter(adapter, loaded.adapter)
    pool = choose_pooling(saved, pooling, include_prompt, transformer.config)
    token_head = [layer.to(transformer.dtype) for layer in saved.token_head]
    width = token_width(transformer.config, token_head) * len(pool.modes)
    encoder = TransformerEncoder(
        transformer,
        TextTokenizer(hf, choose_max_length(saved, max_length, backbone, hf), saved.do_lower_case),
        pooling=pool,
        token_head=token_head,
        head=[layer.to(transformer.dtype) for layer in make_head(saved, dense, normalize, width)],
        prompts={**saved.prompts, **(prompts or {})},
        default_prompt_name=given(default_prompt_name, saved.default_prompt_name),
        similarity=given(similarity, saved.similarity, "cosine"),
        truncate_dim=given(truncate_dim, saved.truncate_dim),
        base_model=model,
        pooler=backbone.pooler,
        packing=packing,
        adapter=None if asked is None else add_adapter(transformer, asked, base=loaded.base),
    )
    freeze_parameters(encoder, freeze)
    use_fast_products(encoder)
    return encoder


class _Loaded(NamedTuple):
    """What a model or a configuration gives."""

    saved: SavedEncoder
    backbone: Backbone
    tokenizer: PreTrainedTokenizerBase
    base: str | None = None  # name of the model that the transformer's weights come from
    adapter: Path | None = None  # the directory of the one that belongs to it


def _check_trains_no_tokenizer(model: str, tokenizer: object) -> None:
    if isinstance(tokenizer, Mapping):
        raise ConfigError(
            "tokenizer",
            "trains a tokenizer whose ids a saved model would not know",
            f"leave it out, or replace model={model!r} by config",
            value=dict(tokenizer),
        )


def _from_saved(
    model: str,
    directory: Path,
    tokenizer: str | Mapping[str, Any] | None,
    pretrained: bool,
    options: LoadOptions,
    bidirectional: bool | None,
) -> _Loaded:
    trust = options.trust_remote_code
    read = partial(read_saved_encoder, weights=pretrained, trust_remote_code=trust)
    transformer, saved = read(directory)
    words, base = transformer, model
    adapter = transformer if (transformer / ADAPTER_CONFIG).is_file() else None
    if adapter is not None and not (transformer / "config.json").is_file():
        base, revision = base_of(adapter)
        key = f"base_model_name_or_path in {adapter / ADAPTER_CONFIG}"
        found = resolve_directory(base, field=key, revision=revision, weights=pretrained)
        transformer, of_base = read(found)
        if not (directory / MODULES_FILE).is_file():
            saved = of_base
        if not any(words.glob("tokenizer*")):
            words = transformer
    config = read_config(transformer, trust_remote_code=trust)
    set_direction(config, bidirectional)
    if pretrained:
        backbone = pretrained_backbone(transformer, config, options)
    else:
        backbone = random_backbone(config, options)
    if isinstance(tokenizer, str):
        hf = _named_tokenizer(tokenizer, options)
    else:
        hf = load_tokenizer(words, trust_remote_code=trust)
    return _Loaded(saved, backbone, hf, base, adapter)


def _from_config(
    config: Mapping[str, Any],
    tokenizer: str | Mapping[str, Any] | None,
    texts: TextStream | None,
    options: LoadOptions,
    bidirectional: bool | None,
) -> _Loaded:
    if tokenizer is None:
        raise ConfigError(
            "tokenizer",
            "is not set, and config needs it",
            "give a directory, a hub name or {train: {vocab_size: 8000}}",
        )
    if isinstance(tokenizer, str):
        hf = _named_tokenizer(tokenizer, options)
    elif [*tokenizer] != ["train"]:
        raise ConfigError(
            "tokenizer",
            "is neither a name nor {train: {...}}",
            "give a directory, a hub name or {train: {vocab_size: 8000}}",
            value=dict(tokenizer),
        )
    elif texts is None:
        raise ConfigError(
            "tokenizer.train",
            "needs training texts",
            "pass texts= to build_encoder, or name a tokenizer",
        )
    else:
        hf = train_wordpiece(texts(), tokenizer["train"] or {})
        check_takes_tokenizer(str(config.get("model_type")), hf)
    made = make_config(config, hf)
    set_direction(made, bidirectional)
    return _Loaded(SavedEncoder(), random_backbone(made, options), hf)


def _named_tokenizer(name: str, options: LoadOptions) -> PreTrainedTokenizerBase:
    directory = resolve_directory(name, field="tokenizer", weights=False)
    return load_tokenizer(directory, trust_remote_code=options.trust_remote_code)
