"""The program on a pretended Windows (`windows/sitecustomize.py`): what works there works, and what cannot says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.photos import write_photo

ROOT = Path(__file__).parents[2]
WINDOWS = Path(__file__).parent / "windows"
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="open files are found in /proc")


def environment(**more: str) -> dict[str, str]:
    """Return the variables with which Python pretends; output into a pipe is not in UTF-8 there."""
    path = os.pathsep.join([str(WINDOWS), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1", **more}


def python(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment(**more), capture_output=True, encoding="cp1252", check=False)


def program(*arguments: str | Path, code: int = 0, **more: str) -> str:
    """Return what the program prints, on both streams."""
    done = python("-m", "paperbench", *map(str, arguments), **more)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def state(run: Path) -> dict[str, Any]:
    try:
        return json.loads((run / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def until(condition: Callable[[], Any], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


PROBE = """
import os, signal, subprocess, sys
seen = [sys.platform, os.name, *(hasattr(*name) for name in ((os, "fork"), (os, "setsid"), (signal, "SIGUSR1")))]
for name in ("fcntl", "resource", "pwd"):
    try:
        exec(f"import {name}")
    except ImportError as error:
        seen.append(error.name)

def refused(act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        seen.append(type(error).__name__)

refused(os.mkdir, "a:b")
refused(os.mkdir, "aux")
refused(os.symlink, "x", "y")
with open("held", "w") as file:
    refused(os.remove, "held")
    refused(os.replace, "held", "other")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
os.kill(child.pid, signal.SIGTERM)
seen.append(child.wait())
print(seen)
"""


def test_the_pretence_is_one(tmp_path: Path) -> None:
    (tmp_path / "paperbench").mkdir()
    (tmp_path / "paperbench" / "__init__.py").write_text(PROBE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", "import paperbench"],
        env=environment(PYTHONPATH=os.pathsep.join([str(WINDOWS), str(tmp_path)])),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    system = ["win32", "nt", False, False, False, "fcntl", "resource", "pwd"]
    assert done.stdout.strip() == str([*system, *["OSError"] * 3, *["PermissionError"] * 2, -9]), done.stderr


def test_every_module_imports() -> None:
    script = """
import importlib, pkgutil, paperbench
for module in pkgutil.walk_packages(paperbench.__path__, "paperbench."):
    if not module.name.endswith(("__main__", "ray_task")):
        importlib.import_module(module.name)
print("all")
"""
    done = python("-c", script)
    assert done.stdout.split() == ["all"], done.stderr


@pytest.mark.slow
def test_a_run_that_is_stopped_resumed_evaluated_and_reported(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = ("train", "vae", "--smoke", "device=cpu", "--run-dir", run)
    assert "resume" in program(*train, code=3, PAPERBENCH_LAST_STEP="10")
    assert (state(run)["state"], state(run)["step"]) == ("stopped", 10)
    program("resume", run)
    assert state(run)["state"] == "done"
    program("report", run)
    assert (run / "report" / "report.html").stat().st_size > 1000
    told = program("eval", "vae", f"checkpoint={run}", "--smoke", "device=cpu", "--run-dir", tmp_path / "evaluated")
    assert "test/bound" in told
    image = write_photo(tmp_path / "photo.png", hue=0, seed=0)
    program("predict", run, image, "--output", tmp_path / "drawn", "--device", "cpu")
    assert [drawing.stem for drawing in (tmp_path / "drawn").iterdir()] == ["photo"]


def test_doctor_finds_all_that_is_essential() -> None:
    told = program("doctor")
    assert "all that is essential works" in told
    assert "logical processors usable here" in told


@pytest.mark.slow
def test_a_sweep_of_two(tmp_path: Path) -> None:
    words = ("sweep", "vae", "seed=0,1", "--smoke", "--jobs", "2", "device=cpu", f"output.root={tmp_path}")
    program(*words)
    runs = sorted(file.parent for file in tmp_path.rglob("results.json"))
    assert [state(run)["state"] for run in runs] == ["done", "done"]


def begun(folder: Path) -> tuple[subprocess.Popen[bytes], list[Path]]:
    """Return a sweep of two long runs, both at work, and their directories."""
    words = (
        "vae",
        "seed=0,1",
        "--smoke",
        "--jobs",
        "2",
        "device=cpu",
        "train.samples=100000000",
        f"output.root={folder}",
    )
    sweep = subprocess.Popen(
        [sys.executable, "-m", "paperbench", "sweep", *words],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: sum(state(f.parent).get("step", 0) > 0 for f in folder.rglob("status.json")) == 2)
    return sweep, [file.parent for file in folder.rglob("status.json")]


@pytest.mark.slow
def test_ctrl_c_has_the_runs_of_a_sweep_save(tmp_path: Path) -> None:
    sweep, runs = begun(tmp_path)
    os.kill(sweep.pid, signal.SIGINT)
    assert sweep.wait(200) == 3
    assert [state(run)["state"] for run in runs] == ["stopped"] * 2
    assert all((run / "checkpoints" / "last.pt").exists() for run in runs)


@pytest.mark.slow
def test_the_runs_of_a_sweep_that_was_killed_save(tmp_path: Path) -> None:
    sweep, runs = begun(tmp_path)
    sweep.kill()
    sweep.wait()
    until(lambda: [state(run)["state"] for run in runs] == ["stopped"] * 2)
    assert {state(run)["message"].partition(" at ")[0] for run in runs} == {"stopped on loss of the launcher"}


HERE = "needs Linux, macOS, or WSL 2 on Windows"
NAME = "Windows cannot hold a file or folder of the name"
REFUSED = {
    ("sweep", "vae", "seed=0,1", "--launcher", "slurm"): f"--launcher slurm: {HERE}; take --launcher local",
    ("sweep", "vae", "seed=0,1", "--launcher", "ray"): f"--launcher ray: {HERE}; take --launcher local",
    ("sweep", "vae", "seed=0,1", "launcher.start=fork"): f"launcher.start=fork: {HERE}; take launcher.start=auto",
    ("train", "vae", "--smoke", "nproc=2"): f"nproc=2: {HERE}; take nproc=1",
    ("sweep", "vae", "seed=0,1", "nproc=2"): f"nproc=2: {HERE}; take nproc=1",
    ("train", "vae", "--smoke", "--run-dir", "aux"): f"--run-dir aux: {NAME} aux; choose another",
    ("train", "vae", "--smoke", "--run-dir", "runs."): f"--run-dir runs.: {NAME} runs.; choose another",
    ("train", "vae", "--smoke", "output.root=a:b/runs"): f"{NAME} a:b; choose another",
    ("init", "con", "."): f"con: {NAME} con.yaml; choose another",
}
"""Words of a command, and what it answers."""


def test_what_cannot_work_says_so(tmp_path: Path) -> None:
    script = """
import json, sys
from paperbench.cli.app import main
from contextlib import redirect_stderr
import io
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["paperbench", *words]
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            main()
        code = 0
    except SystemExit as end:
        code = end.code
    codes.append([code, said.getvalue()])
print(json.dumps(codes))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(list(REFUSED))],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (words, expected), (code, said) in zip(REFUSED.items(), json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert expected in " ".join(said.split()), words
        assert code in (2, 4), words
    assert list(tmp_path.iterdir()) == []
