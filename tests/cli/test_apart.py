"""A command in a process of its own, whose library ends it in several ways."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paperbench.cli import apart

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PROGRAM = """
import atexit, os, signal, sys, time
import typer
from paperbench.cli.apart import LibraryExitError, apart, note

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

def body():
    print("pid", os.getpid(), flush=True)
    {body}

app = typer.Typer()

@app.command()
def command():
    try:
        with apart():
            body()
    except LibraryExitError as ended:
        print("noted", *ended.noted)
        print("said", ended.said)
        raise typer.Exit(4)
    assert os.getppid() != {parent}

app()
"""


def start(body: str) -> subprocess.Popen[str]:
    code = PROGRAM.format(body=body.replace("\n", "\n    "), parent=os.getpid())
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(body: str) -> tuple[int, list[str], str]:
    process = start(body)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.splitlines()[1:], err


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("print('all said')", 0),
        ("print('all said'); raise typer.Exit(3)", 3),
        ("print('all said'); from paperbench.errors import ConfigError; raise ConfigError('no')", 1),  # no guard here
        # The leave-taking of a library is no part of the command.
        ("print('all said'); atexit.register(os.kill, os.getpid(), signal.SIGSEGV); raise typer.Exit(3)", 3),
    ],
)
def test_a_command_that_ends_by_itself_has_its_own_exit_code(body: str, code: int) -> None:
    found, out, _ = run(body)
    assert (found, out) == (code, ["all said"])


RAY_SAYS = """
os.write(2, b"[2026-11-30 19:20:01,123 E 4711 4712] (raylet) raylet_client.cc:90: the node is gone\\n")
os.write(2, b"*** StackTrace Information ***\\n/lib/libc.so.6(+0x1098ec) [0x7eff8d5278ec]\\n")
"""


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGABRT)"])
def test_a_command_that_a_library_ends_leaves_what_it_noted(end: str) -> None:
    code, out, err = run(f"note('first'); note('second one')\n{RAY_SAYS.strip()}\n{end}")
    assert (code, out, err) == (4, ["noted first second one", "said the node is gone"], "")


def test_what_the_command_says_on_stderr_is_shown_and_what_libraries_say_is_not() -> None:
    code, _, err = run("print('a warning', file=sys.stderr)\nos.write(2, b'from C++')")
    assert (code, err) == (0, "a warning\n")


def test_a_signal_is_passed_on_once() -> None:
    process = start(
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('asked')\n    time.sleep(0.5)\n    raise typer.Exit(3)"
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("pid ")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert (*process.communicate(timeout=60), process.returncode) == ("asked\n", "", 3)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_it_dies_with_its_parent() -> None:
    process = start("time.sleep(60)")
    assert process.stdout is not None
    child = int(process.stdout.readline().split()[1])
    assert child != process.pid
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.communicate()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        ("Segmentation fault\n", "Segmentation fault"),
        ("the last\n    @ 0x7f in main [0x7f]\n", "the last"),
        ("x" * 300, "x" * 240 + "…"),
        (
            "[2026-11-30 19:20:01,123 I 1 2] quiet.cc:1: begins\n[2026-11-30 19:20:01,123 C 1 2] loud.cc:1:  Check failed: x\nmore",
            "Check failed: x",
        ),
    ],
)
def test_the_essence_of_what_a_library_wrote(text: str, said: str) -> None:
    assert apart._essence(text) == said
