"""Plain lines: complete, calm, without any control character, and never the reason a run dies."""

from __future__ import annotations

import errno
import io
import math

import pytest

from paperbench.cli.output import duration
from paperbench.cli.plain import PlainReporter, describe

VALUES = {"loss": 1.23456, "loss/box": 0.1, "lr": 0.001, "samples/s": 12.34, "best": 83.456}


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def reporter() -> tuple[PlainReporter, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return PlainReporter(stream, interval=10, clock=clock), stream, clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (75, "1:15"), (3675, "1:01:15"), (math.nan, "-"), (math.inf, "-"), (-1, "-")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_values_are_written_with_the_digits_they_deserve() -> None:
    assert describe(VALUES) == ["loss 1.235", "loss/box 0.1", "lr 0.001", "12.3 samples/s", "best 83.46"]
    assert describe({"train/samples_per_second": 5.0, "best_coco/AP50": 2}) == ["5.0 samples/s", "best coco/AP50 2.00"]
    assert describe({"loss": math.nan}) == ["loss nan"]


def test_start_says_what_runs_on_what() -> None:
    plain, stream, _ = reporter()
    plain.start("faster-rcnn", {"data": "shapes", "device": "cpu"})
    assert stream.getvalue() == "faster-rcnn\n  data    shapes\n  device  cpu\n"


def test_progress_keeps_to_its_interval() -> None:
    plain, stream, clock = reporter()
    for done in range(101):
        plain.progress("train", done, 100, VALUES)
        clock.now += 1
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == [*(f"{done}/100" for done in range(0, 100, 10)), "100/100"]
    assert lines[5] == "train 50/100  50%  0:50 left  loss 1.235  loss/box 0.1  lr 0.001  12.3 samples/s  best 83.46"
    assert "left" not in lines[0]
    assert "left" not in lines[-1]


def test_time_left_of_a_resumed_run_counts_only_what_was_done_here() -> None:
    plain, stream, clock = reporter()
    plain.progress("train", 900, 1000, {})
    clock.now += 20
    plain.progress("train", 910, 1000, {})
    assert stream.getvalue().splitlines()[1] == "train 910/1000  91%  3:00 left"


def test_a_phase_that_begins_again_is_reported_again() -> None:
    plain, stream, clock = reporter()
    for _ in range(2):
        for done in (0, 5, 10):
            plain.progress("evaluate", done, 10, {})
            clock.now += 1
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["0/10", "10/10"] * 2


def test_phases_are_paced_apart() -> None:
    plain, stream, _ = reporter()
    plain.progress("train", 1, 10, {})
    plain.progress("evaluate", 1, 10, {})
    plain.progress("train", 2, 10, {})
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["train", "evaluate"]


def test_a_phase_without_any_work_does_not_fail() -> None:
    plain, stream, _ = reporter()
    plain.progress("evaluate", 0, 0, {})
    assert stream.getvalue() == "evaluate 0/0  0%\n"


def test_letters_that_the_stream_lacks_become_question_marks() -> None:
    raw = io.BytesIO()
    plain = PlainReporter(io.TextIOWrapper(raw, encoding="ascii"))
    plain.message("faster-rcnn · café")
    plain.close()
    assert raw.getvalue() == b"faster-rcnn ? caf?\n"


class Gone(io.StringIO):
    """A stream whose reader has left, or whose disk is full."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise self.error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left"), ValueError("closed file")]
)
def test_a_stream_that_is_gone_is_left_alone(error: Exception) -> None:
    stream = Gone(error)
    plain = PlainReporter(stream)
    plain.message("one")
    plain.progress("train", 1, 2, VALUES)
    plain.close()
    assert stream.tries == 1
