"""The interface of a task: the functions that its module offers to the command line and the engine.

`catalog.TASKS` names the module as a string; it is imported only when such a run starts.
"""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from paperbench.catalog import TaskSpec, package_of
from paperbench.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from paperbench.engine.exportable import Exportable
    from paperbench.engine.run import Run
    from paperbench.errors import PaperbenchError


def task_module(task: TaskSpec) -> Any:
    """Return the module of a task. Raises `ConfigError` with its package where it cannot be imported."""
    try:
        return importlib.import_module(task.module)
    except ImportError as error:
        raise ConfigError(
            f"task {task.name} of {package_of(task)}: module {task.module} cannot be imported: {error}"
        ) from error


class Task(Protocol):
    """A module that implements one `TaskSpec`."""

    def plan(self, config: Any) -> Mapping[str, str]:
        """Facts for the opening panel and `--dry-run`: data, model, schedule. Quick; may open annotations, trains nothing.

        The fact `data` describes the data that the numbers are measured on; results.json holds it. Called in rank 0 alone.
        """
        ...

    def run(self, config: Any, run: Run) -> dict[str, float]:
        """Do the work in every rank and return the metrics (rank 0's are written). Resumes from `run.checkpoints`."""
        ...


class Predicts(Protocol):
    """A task whose trained runs can be applied to images."""

    def predict(
        self, config: Any, run_dir: Path, images: Sequence[Path], output: Path, **options: Any
    ) -> list[dict[str, Any]]:
        """Write one picture per image below `output`; return what was found, JSON-ready, with the picture's path.

        `engine.drawings.Drawings` says which places may be written, and what becomes of an image that cannot be read.
        """
        ...


class Stacks(Protocol):
    """A task whose runs can share a process and stacked weights (`TaskSpec.stacks`, `paperbench sweep --stacked`)."""

    def stack_key(self, config: Any) -> Hashable | None:
        """Return the key of a run: runs with equal keys may be stacked; None for a run that has to be alone."""
        ...

    def run_stacked(self, configs: Sequence[Any], runs: Sequence[Run]) -> Sequence[dict[str, float] | PaperbenchError]:
        """Do all of the runs and return the metrics of each, in their order, or the error that it alone failed with.

        Each model starts as `run` would start it (`seed_everything(config.seed, MODEL_INIT)`), and what is saved in
        `run.checkpoints` is what `run` continues from. A run may have checkpoints of an earlier session already.
        """
        ...


class LoadsModel(Protocol):
    """A task whose runs train a net."""

    def load_model(self, config: Any, run_dir: Path) -> nn.Module:
        """Return the trained net of a run on the CPU, in evaluation mode; no data set is read.

        Raises `ConfigError` for a run without a checkpoint and `CheckpointError` for a damaged one.
        """
        ...


class Exports(Protocol):
    """A task whose trained models can be written for other programs (`TaskSpec.exports`, `paperbench export`)."""

    def export_model(self, config: Any, run_dir: Path) -> Exportable:
        """The trained model of a run with examples to trace and compare it on; see `engine.exportable.Exportable`."""
        ...
