"""The metric log of a run: JSON lines always, TensorBoard on request, any other destination with two methods."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from paperbench.engine.files import explain_os_errors, finite
from paperbench.engine.jsonlines import JsonLinesWriter, read_json_lines
from paperbench.errors import EnvironmentError_


class MetricSink(Protocol):
    """A destination of metrics."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write `values`, measured after `step` steps."""
        ...

    def close(self) -> None:
        """Close the destination; called once, at the end."""
        ...


class JsonLines:
    """Appends one JSON object a record to a file: `{"step", "time", <name>: number}`."""

    def __init__(self, path: Path) -> None:
        self._file = JsonLinesWriter(path)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._file.write({"step": step, "time": round(time.time(), 3), **finite(values)})

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Event files for TensorBoard, an optional extra. Raises `EnvironmentError_` where it is not installed."""

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise EnvironmentError_(
                "tensorboard=true needs TensorBoard: pip install 'paperbench[tensorboard]', or leave it out"
            ) from error
        with explain_os_errors(directory):
            self._writer = SummaryWriter(str(directory))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class MetricLog:
    """Hands every record to each of several sinks."""

    def __init__(self, sinks: Sequence[MetricSink] = ()) -> None:
        self._sinks = tuple(sinks)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.write(step, values)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, one a step, in the order of the steps, each with its `step` and its values.

    Where a step was written more than once, as after a resume, the later value of a name wins. A line that a killed writer
    left half written is passed over. A file that is not there holds no records.
    """
    steps: dict[int, dict[str, Any]] = {}
    for record in read_json_lines(path):
        try:
            step = int(record["step"])
        except (ValueError, KeyError, TypeError):
            continue
        steps.setdefault(step, {}).update(record)
    return [steps[step] for step in sorted(steps)]
