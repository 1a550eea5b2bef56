"""The display of a run: plain lines, the live display on terminals of several widths, and the choice between them."""

from __future__ import annotations

import errno
import io
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from paperbench.cli.display import PlainReporter, RichReporter, describe, make_reporter
from paperbench.cli.output import duration
from tests.cli.test_summary import RESULTS
from tests.report.made_runs import paper_config

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOURS = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38)[0-9;]*m")
VALUES = {"loss": 1.23456, "loss/box": 0.1, "lr": 0.001, "samples/s": 12.34, "best": 83.456}


# --- plain lines: complete, and without any control character ---------------------------------------------------------


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


def test_long_facts_are_folded_and_commands_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    stream = io.StringIO()
    PlainReporter(stream).start("a run", {"data": ", ".join(["a folder of photographs"] * 20), "device": "cpu"})
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[2].startswith("          ")
    assert lines[-1] == "  device  cpu"


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


# --- live display -----------------------------------------------------------------------------------------------------


def terminal(width: int = 100) -> tuple[RichReporter, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system="standard", highlight=False)
    return RichReporter(console), stream


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    folder = tmp_path / "outputs" / "one"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(paper_config("faster-rcnn", "Table 3", "RPN+VGG shared 300, 07", "mAP"))
    )
    return str(folder)


def whole_run(display: RichReporter, run_dir: str) -> None:
    display.start("faster-rcnn", {"data": "voc: VOC2007 trainval and test", "device": "cpu, float32"})
    for done in range(11):
        display.progress("train", done, 10, VALUES)
        if done == 5:
            display.message("last.pt is damaged: best.pt was used instead")
            display.progress("evaluate", 4, 4, {})
    display.finish(RESULTS, run_dir)
    display.close()


def test_a_run_from_the_panel_to_the_table(run_dir: str) -> None:
    display, stream = terminal()
    whole_run(display, run_dir)
    text = ESCAPES.sub("", stream.getvalue())
    assert "data    voc: VOC2007 trainval and test" in text
    assert "last.pt is damaged: best.pt was used instead" in text
    assert re.search(r"train +━+ 10/10 done", text)
    assert re.search(r"loss 1\.235 +loss/box 0\.1 +lr 0\.001 +12\.3 samples/s +best 83\.46", text)
    assert re.search(r"voc07/mAP +│ +70\.2 % │ 69\.9 \+-1\.2 % │ Table 3 │ within tolerance", text)
    assert "paperbench predict outputs/one IMAGE.jpg" in text
    assert text.index("last.pt is damaged") < text.index("voc07/mAP")


def test_no_colour_when_asked(run_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured, stream = terminal()
    whole_run(coloured, run_dir)
    assert COLOURS.search(stream.getvalue())
    monkeypatch.setenv("NO_COLOR", "1")
    plain, stream = terminal()
    whole_run(plain, run_dir)
    assert not COLOURS.search(stream.getvalue())


@pytest.mark.parametrize("width", [20, 40, 200])
def test_lines_keep_to_the_terminal_except_commands_to_copy(width: int, run_dir: str) -> None:
    display, stream = terminal(width)
    whole_run(display, run_dir)
    lines = ESCAPES.sub("", stream.getvalue()).replace("\r", "\n").split("\n")
    too_long = [line for line in lines if len(line.rstrip()) > width]
    assert all("paperbench " in line for line in too_long)


def test_square_brackets_are_text_not_markup(run_dir: str) -> None:
    display, stream = terminal()
    display.start("[red]", {"data": "classes=[cat]"})
    display.message("[bold]not bold[/bold]")
    display.finish(RESULTS | {"data": "[data]"}, run_dir)
    text = stream.getvalue()
    assert "classes=[cat]" in text
    assert "[bold]not bold[/bold]" in text
    assert "[data]" in text
    assert "[red]" in text


def test_close_gives_the_cursor_back_and_may_be_called_twice() -> None:
    display, stream = terminal()
    display.progress("train", 1, 10, VALUES)
    assert "\x1b[?25l" in stream.getvalue()
    display.close()
    display.close()
    assert stream.getvalue().count("\x1b[?25h") == 1
    assert "train" in stream.getvalue()  # how far it got stays to be read


def test_close_before_anything_happened() -> None:
    display, stream = terminal()
    display.close()
    assert stream.getvalue() == ""


def test_a_display_that_was_closed_opens_again_for_more_progress() -> None:
    display, stream = terminal()
    display.progress("train", 10, 10, {})
    display.close()
    display.progress("evaluate", 1, 2, {})
    display.close()
    assert stream.getvalue().count("\x1b[?25h") == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_reporter_follows_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_reporter(), PlainReporter)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(make_reporter(), RichReporter)
    assert isinstance(make_reporter(json_output=True), PlainReporter)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_reporter(), PlainReporter)


def test_json_leaves_stdout_alone(capsys: pytest.CaptureFixture[str], run_dir: str) -> None:
    reporter = make_reporter(json_output=True)
    reporter.start("faster-rcnn", {"data": "voc"})
    reporter.message("a message")
    reporter.progress("train", 1, 1, VALUES)
    reporter.finish(RESULTS, run_dir)
    reporter.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a message" in captured.err
    assert "voc07/mAP" in captured.err


def test_plain_lines_tell_the_same_end(capsys: pytest.CaptureFixture[str], run_dir: str) -> None:
    reporter = make_reporter()
    reporter.finish(RESULTS, run_dir)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert re.search(r"  voc07/mAP +70\.2 % +paper 69\.9 \+-1\.2 % \(Table 3\)  within tolerance", text)
    assert "paper: Ren, He, Girshick, Sun" in text
    assert "paperbench eval faster-rcnn checkpoint=outputs/one" in text


def test_importing_the_display_needs_neither_rich_nor_torch() -> None:
    program = (
        "import sys, paperbench.cli.display as display\n"
        "display.make_reporter().start('title', {'data': 'x'})\n"
        "print([name for name in ('torch', 'rich', 'yaml', 'pydantic', 'hydra') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
