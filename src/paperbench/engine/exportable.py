"""A trained model as its task hands it over for `paperbench export`: the module, example inputs, names and tolerances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output: its name, what it is, and the largest absolute difference, in its own unit, that rounding may make."""

    name: str
    meaning: str
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Exportable:
    """A model ready to be written.

    `module` is on the CPU, in evaluation mode and in float32; `module(*inputs)` takes and returns tensors, in the order of
    `input_names` and `outputs`. `inputs` are real-looking examples: the first is what a graph is traced with, all are
    compared. `dynamic` maps input names to the axes that may vary, by number and name; with it, the examples should differ
    there. `step` is that of the checkpoint. `weights` is the dotted name of the part whose parameters safetensors holds,
    empty for the whole of `module`.

    `reference(*inputs)` is what the run's own code gives, by default `module` itself. `differences` compares two answers and
    returns the largest absolute difference of each output, infinite where they cannot be matched; by default element by
    element. `refused` maps a format to the reason why this very model cannot be written in it. `metadata` is written into
    the file, where the format has a place for it. `translations` gives ONNX equivalents of operators that the exporter lacks.
    """

    module: nn.Module
    inputs: Sequence[Tensors]
    input_names: tuple[str, ...]
    outputs: tuple[Output, ...]
    meaning: str
    step: int
    dynamic: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    weights: str = ""
    reference: Callable[..., Tensors] | None = None
    differences: Callable[[Tensors, Tensors], Mapping[str, float]] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    translations: Callable[[], dict[Any, Any]] | None = None
