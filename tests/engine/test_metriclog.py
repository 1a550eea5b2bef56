"""The record of a run's numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from paperbench.engine.metriclog import JsonLines, MetricLog, TensorBoard, read
from paperbench.errors import EnvironmentError_


class Sink:
    def __init__(self) -> None:
        self.written: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.written.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


def without_time(path: Path) -> list[dict[str, object]]:
    return [{key: value for key, value in record.items() if key != "time"} for record in read(path)]


def test_every_sink_gets_every_record() -> None:
    sinks = (Sink(), Sink())
    log = MetricLog(sinks)
    log.write(3, {"a": 1.0})
    log.close()
    assert all(sink.written == [(3, {"a": 1.0})] and sink.closed for sink in sinks)


def test_lines_are_appended_and_the_later_record_of_a_step_wins(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read(path) == []
    log = JsonLines(path)
    for step in (2, 4, 6):
        log.write(step, {"loss": step / 10})
    log.write(4, {"AP": 0.5})
    log.close()
    before = path.read_bytes()
    log = JsonLines(path)  # resumed at step 2
    log.write(4, {"loss": 9.0})
    log.close()
    assert path.read_bytes().startswith(before)
    assert without_time(path) == [
        {"step": 2, "loss": 0.2},
        {"step": 4, "loss": 9.0, "AP": 0.5},
        {"step": 6, "loss": 0.6},
    ]


def test_a_torn_last_line_is_passed_over_and_kept_from_the_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.write(1, {"loss": 1.0})
    log.write(2, {"loss": 2.0})
    log.close()
    path.write_bytes(path.read_bytes()[:-9])
    assert without_time(path) == [{"step": 1, "loss": 1.0}]
    log = JsonLines(path)
    log.write(2, {"loss": 2.5})
    log.close()
    assert without_time(path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.5}]


@pytest.mark.parametrize("torn", ["", "{", "3", "[1]", '{"loss": 1}', '{"step": null}', '{"step": 7, "lo\\u00', "\xff"])
def test_lines_that_are_no_records(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 1.0}\n' + torn.encode("latin-1"))
    assert without_time(path) == [{"step": 1, "loss": 1.0}]


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.write(1, {"a": float("nan"), "b": float("inf"), "c": 1.0})
    log.close()
    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert (record["a"], record["b"], record["c"]) == (None, None, 1.0)


def test_tensorboard_writes_what_tensorboard_reads(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path / "tensorboard")
    board.write(5, {"train/loss": 0.25})
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(5, 0.25)]


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(EnvironmentError_, match=r"pip install 'paperbench\[tensorboard\]'"):
        TensorBoard(tmp_path)
