"""What the first word of a command costs, and how a process ends: in real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import paperbench

HEAVY = {
    "torch",
    "torchvision",
    "hydra",
    "omegaconf",
    "pydantic",
    "numpy",
    "scipy",
    "yaml",
    "PIL",
    "matplotlib",
    "rich",
}
PROGRAM = [sys.executable, "-m", "paperbench"]


def loaded_by(*arguments: str) -> set[str]:
    """Top-level names of all modules that a command imports."""
    code = (
        "import sys\nsys.argv = ['paperbench', *sys.argv[1:]]\nfrom paperbench.cli.app import main\n"
        "try:\n    main()\nfinally:\n    print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_imports_nothing_slow(argument: str) -> None:
    assert not HEAVY & loaded_by(argument)  # not even rich: drawing help with it takes longer than all the rest


@pytest.mark.parametrize("command", ["train", "data"])
def test_help_of_a_command_imports_nothing_slow_either(command: str) -> None:
    # Typer itself takes pydantic to read a command's options.
    assert not (HEAVY - {"pydantic"}) & loaded_by(command, "--help")


@pytest.mark.parametrize("arguments", [("ls",), ("runs",), ("data", "ls"), ("show", "faster-rcnn")])
def test_listings_import_no_torch(arguments: tuple[str, ...]) -> None:
    assert not {"torch", "torchvision", "scipy"} & loaded_by(*arguments)


def test_no_module_imports_click() -> None:
    package = Path(paperbench.__file__).parent
    found = [
        f
        for f in package.rglob("*.py")
        if "import click" in f.read_text("utf-8") or "from click" in f.read_text("utf-8")
    ]
    assert found == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False)


def test_six_mistakes_one_message_no_traceback_no_directory(tmp_path: Path) -> None:
    given = ["optim.lrr=1", "+optim.lrrr=1", "data=pennfudann", "optim.lr=abc", "model.bakbone=zf", "scale=shrt"]
    done = run("train", "faster-rcnn", *given)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("error:") == 1
    assert len(done.stderr.splitlines()) == 6
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback() -> None:
    done = run("train", "faster-rcnn", "optim.lrr=1", "--debug")

    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "error: optim.lrr" in done.stderr


def test_wrong_usage_is_2() -> None:
    assert run("train").returncode == 2
    assert run("trian", "faster-rcnn").returncode == 2
    assert run("train", "faster-rcnn", "--no-such-option").returncode == 2


def test_a_closed_pipe_is_quiet() -> None:
    program = subprocess.Popen([*PROGRAM, "show", "faster-rcnn"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    with program.stderr as stream:
        said = stream.read()
    program.wait()
    assert said == b""


def test_the_console_script_and_the_module_are_one_program() -> None:
    assert run("--version").stdout == f"paperbench {paperbench.__version__}\n"
