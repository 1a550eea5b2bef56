"""The live display, on terminals of several widths, and the choice between it and plain lines."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from paperbench.cli.display import RichReporter, make_reporter
from paperbench.cli.plain import PlainReporter
from tests.cli.test_summary import RESULTS
from tests.report.test_published import VGG_07

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOURS = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38)[0-9;]*m")
VALUES = {"loss": 1.5, "loss/rpn_objectness": 0.25, "lr": 0.001, "samples/s": 12.3, "best": 83.4}


def terminal(width: int = 100) -> tuple[RichReporter, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system="standard", highlight=False)
    return RichReporter(console), stream


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    folder = tmp_path / "outputs" / "one"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(VGG_07))
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
    assert re.search(r"loss 1\.5 +loss/rpn_objectness 0\.25 +lr 0\.001 +12\.3 samples/s +best 83\.40", text)
    assert re.search(r"voc07/mAP +│ +70\.2 % │ 69\.9 \+-1\.2 % │ Table 3, agrees", text)
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
    assert re.search(r"  voc07/mAP +70\.2 % +paper 69\.9 \+-1\.2 % \(Table 3\)  agrees\n", text)
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
