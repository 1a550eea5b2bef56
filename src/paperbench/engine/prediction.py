"""The `predict` of a run's task, and the options that it takes; for the command line and for Python."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from paperbench.catalog import TASKS, TaskSpec
from paperbench.config.suggest import nearest
from paperbench.errors import ConfigError

Predict = Callable[..., list[dict[str, Any]]]


def predict_of(task: TaskSpec, run: Path) -> Predict:
    """Return `engine.task.Predicts.predict` of a task, or of the task that evaluates its runs; `ConfigError` where none has it."""
    for name in (task.module, *([TASKS[task.evaluated_by].module] if task.evaluated_by else [])):
        module = importlib.import_module(name)
        if hasattr(module, "predict"):
            return _in_its_precision(module.predict)
    raise ConfigError(f"{run}: runs of task {task.name} have no model that predicts on images")


def _in_its_precision(predict: Predict) -> Predict:
    from paperbench.engine.precision import float32_products

    @functools.wraps(predict)
    def wrapper(config: Any, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        with float32_products(config.precision):
            return predict(config, *arguments, **options)

    return wrapper


def takes(predict: Predict, option: str) -> bool:
    """Return True where `predict` has a keyword of that name."""
    return option in _options(predict)


def check_options(predict: Predict, options: Mapping[str, Any], run: Path) -> None:
    """Raise `ConfigError` naming the options that `predict` of the run's task does not have, with those that it has."""
    known = _options(predict)
    mistakes = []
    for name in options:
        if name not in known:
            near = nearest(name, known)
            listed = f"Nearest: {', '.join(near)}" if near else f"Options: {', '.join(['output', *known])}"
            mistakes.append(f"{name}: prediction with the run {run} has no such option. {listed}")
    threshold = options.get("score_threshold")
    number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if threshold is not None and not (number and 0 <= float(threshold) <= 1):
        mistakes.append(f"score_threshold={threshold!r}: give a number from 0 to 1")
    if mistakes:
        raise ConfigError(*mistakes)


def _options(predict: Predict) -> list[str]:
    parameters = inspect.signature(predict).parameters.values()
    return [it.name for it in parameters if it.kind is it.KEYWORD_ONLY and it.name != "reporter"]
