"""A copy of the tree, a process that has imported it, and a fork of that process for each mistake."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mistakes.listed import ROOT, SOURCE, Mistake
from tests.mistakes.patching import replace_code

PARTS = ("src", "conf", "tests", "docs", "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
"""What the tests read of the tree."""

_HEAVY = (
    "torch", "torchvision", "cv2", "pydantic", "pytest", "xdist.plugin", "pytest_timeout", "hydra", "omegaconf", "scipy.stats",
    "sklearn.svm", "sklearn.isotonic", "sklearn.cluster", "sklearn.pipeline", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "PIL.Image", "typer.testing", "pycocotools.mask", "nibabel"
)  # fmt: skip

_CONTEXT = multiprocessing.get_context("fork")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", re.MULTILINE)


class Planter:
    """Plants mistakes in a copy of the tree in `folder`, one after the other. It is to be made in a process of its own, which has
    imported nothing of the program and its tests: it imports the copy."""

    def __init__(self, folder: Path, *, limit: float) -> None:
        self.copy = _copy(folder)
        self.limit = limit
        _warm_up()
        os.chdir(self.copy)
        os.environ["PYTHONPATH"] = str(self.copy / "src")
        for name in [name for name in sys.modules if name == "tests" or name.startswith("tests.")]:
            del sys.modules[name]
        sys.path[:] = [
            str(self.copy / "src"),
            str(self.copy),
            *(entry for entry in sys.path if entry not in ("", str(ROOT))),
        ]
        importlib.invalidate_caches()

    def plant(self, mistake: Mistake, *, whole: bool) -> tuple[str, str]:
        """Return the verdict on a mistake, and by which test."""
        tests = [f"tests/{test}" for test in mistake.tests]
        self._import(mistake, tests)
        file = self.copy / SOURCE / mistake.file
        before = file.read_text(encoding="utf-8")
        try:
            after = mistake.planted(before)
            file.write_text(after, encoding="utf-8")
            verdict, by = self._test(tests, mistake, (before, after))
            if verdict == "not caught" and whole:
                verdict, by = self._test([f"tests/{mistake.package}"], mistake, (before, after))
        except ValueError as error:
            return "error of the list", str(error)
        finally:
            file.write_text(before, encoding="utf-8")
        return verdict, by

    def check(self, tests: Sequence[str]) -> tuple[bool, str]:
        """Return True if tests pass without a mistake, and what pytest printed."""
        self._import(None, tests)
        passed = self._test(list(tests), None, None)[0] == "not caught"
        return passed, (self.copy / "output.txt").read_text(encoding="utf-8", errors="replace")

    def _import(self, mistake: Mistake | None, tests: Sequence[str]) -> None:
        """Import what the forks need, here and once."""
        names = [] if mistake is None else [_module_name(SOURCE.name / Path(mistake.file))]
        for test in tests:
            place = Path(test.partition("::")[0])
            files = [place] if place.suffix else sorted(place.rglob("test_*.py"))
            names += [_module_name(file) for file in files]
        for name in names:
            with contextlib.suppress(Exception):  # pytest will say what is wrong with it
                importlib.import_module(name)

    def _test(self, tests: list[str], mistake: Mistake | None, texts: tuple[str, str] | None) -> tuple[str, str]:
        """Return the verdict and the first test that failed, of a fork in which the mistake is planted."""
        output = self.copy / "output.txt"
        process = _CONTEXT.Process(target=_pytest, args=(tests, output, mistake, texts))
        process.start()
        process.join(self.limit)
        if process.is_alive():
            process.kill()
            process.join()
            return "time limit", f"{self.limit:g} s"
        text = output.read_text(encoding="utf-8", errors="replace")
        if process.exitcode == 0:
            return "not caught", ""
        if process.exitcode == 1 and (failed := _FAILED.search(text)):
            return "caught", failed[1]
        return "error of the list", " ".join(text[-300:].split())


def _pytest(tests: list[str], output: Path, mistake: Mistake | None, texts: tuple[str, str] | None) -> None:
    """Run pytest in this process, a fork."""
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if mistake is not None and texts is not None:
        module = sys.modules.get(_module_name(SOURCE.name / Path(mistake.file)))
        if module is None or not replace_code(module, *texts):
            for name in [name for name in sys.modules if name.partition(".")[0] in ("paperbench", "tests")]:
                del sys.modules[name]
            importlib.invalidate_caches()
    import pytest

    options = ["-q", "-n0", "-p", "no:cacheprovider", "--no-header", "-rfE"]
    options += ["--tb=short", "--durations=5"] if mistake is None else ["--tb=line", "-x"]
    # What is imported already cannot be rewritten, and need not be.
    code = pytest.main([*options, "-W", "ignore::pytest.PytestAssertRewriteWarning", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def _module_name(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _warm_up() -> None:
    """Import what takes seconds, and nothing of the program."""
    for name in _HEAVY:
        importlib.import_module(name)
    assert "paperbench" not in sys.modules, "the copy is to be imported"
    sys.modules["torch"].set_num_threads(1)


def _copy(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    folder.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignored)
        elif source.is_file():
            shutil.copy2(source, folder / part)
    return folder
