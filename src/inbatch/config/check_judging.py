"""Every check of the configuration of an evaluation or a comparison before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from inbatch.config.check import add_evaluators, check_evaluation, check_node, parse, plain_values
from inbatch.config.judging import CompareConfig, EvaluateConfig
from inbatch.errors import ConfigError


def check_evaluate(cfg: DictConfig) -> EvaluateConfig:
    """Check keys, types and values of a composed configuration.

    Raises:
        ConfigError: see `check_config`; nothing to evaluate on.
    """
    run: EvaluateConfig = parse(plain_values(cfg), EvaluateConfig)
    _check_judged(run, others=bool(run.mteb.tasks))
    return run


def check_compare(cfg: DictConfig) -> CompareConfig:
    """Check the configuration of a comparison alike; its models are by name then.

    Raises:
        ConfigError: see `check_config`; fewer than two models, or nothing to compare on.
    """
    if OmegaConf.is_missing(cfg.encoder, "model"):  # each model has its turn there
        cfg.encoder.model = ""
    elif cfg.encoder.get("model") is not None:
        raise ConfigError(
            "encoder.model",
            "is not taken here, where each of models has its turn",
            "leave it out, and name the model in models",
            value=cfg.encoder.model,
        )
    run: CompareConfig = parse(plain_values(cfg), CompareConfig)
    run.models = _models(run.models)
    _check_judged(run, others=False)
    return run


def _check_judged(run: EvaluateConfig | CompareConfig, *, others: bool) -> None:
    """Check what is evaluated on, and the encoder; `others` says that there is more to evaluate on."""
    add_evaluators(run.evaluation.evaluators, run.data.eval, run.data.columns)
    if not run.evaluation.evaluators and not others:
        fix = "give a value on the command line, as data.eval=..."
        raise ConfigError("data.eval", "is not set", fix)
    check_node(run.encoder, "encoder", "conf/encoder/, as encoder=...")
    check_evaluation(run.evaluation)


def _models(given: Any) -> dict[str, str]:
    """Models by name; those of a list by their paths."""
    fix = "set models=[MODEL,MODEL] or models={NAME: MODEL, NAME: MODEL}"
    if not isinstance(given, list | Mapping):
        raise ConfigError("models", "is neither a list nor models by name", fix, value=given)
    named = dict(given) if isinstance(given, Mapping) else {str(path): path for path in given}
    if len(named) < 2:
        raise ConfigError("models", "does not name two different models", fix, value=given)
    if wrong := [path for path in named.values() if not isinstance(path, str)]:
        raise ConfigError("models", "has what is no path or name", fix, value=wrong[0])
    return {str(name): path for name, path in named.items()}
