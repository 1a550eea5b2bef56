"""A copy of the tree, a process that has collected its tests, and a fork of that process for each mistake."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import re
import shutil
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.mistakes.listed import ROOT, SOURCE, Mistake
from tests.mistakes.patching import replace_code

PARTS = ("src", "conf", "tests", "docs", "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
"""What the tests read of the tree."""

_HEAVY = (
    "torch", "torchvision", "cv2", "pydantic", "pytest", "xdist.plugin", "pytest_timeout", "hydra", "omegaconf", "scipy.stats",
    "sklearn.svm", "sklearn.isotonic", "sklearn.cluster", "sklearn.pipeline", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "PIL.Image", "typer.testing", "pycocotools.mask", "nibabel"
)  # fmt: skip

_OPTIONS = (
    "-q",
    "-n0",
    "-p",
    "no:cacheprovider",
    "--no-header",
    "-rfE",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)

Report = Callable[[Mistake, str, str], None]
"""Takes a mistake, the verdict on it, and by which test."""

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

    def plant(self, mistakes: Sequence[Mistake], report: Report, *, whole: bool) -> None:
        """Plant mistakes one after the other, in one session of pytest; `report` gets each with its verdict and the test."""
        import pytest

        named = dict.fromkeys(f"tests/{test.partition('::')[0]}" for mistake in mistakes for test in mistake.tests)
        session = _Session(self, mistakes, report, whole=whole)
        with _muted(self.copy / "session.txt"):
            pytest.main([*_OPTIONS, *named], plugins=[session])
        for mistake in mistakes[session.planted :]:
            report(mistake, "error of the list", "its tests could not be collected")

    def plant_one(self, mistake: Mistake, items: Sequence[Any], *, whole: bool) -> tuple[str, str]:
        """Return the verdict of the collected tests `items` on a mistake, and by which of them."""
        tests = [f"tests/{test}" for test in mistake.tests]
        chosen = [item for test in tests for item in items if _belongs(item.nodeid, test)]
        if not chosen:
            return "error of the list", "no such test"
        file = self.copy / SOURCE / mistake.file
        before = file.read_text(encoding="utf-8")
        try:
            after = mistake.planted(before)
            file.write_text(after, encoding="utf-8")
            verdict, by = self._in_fork(mistake, chosen, (before, after)) or self._test(tests, mistake)
            if verdict == "not caught" and whole:
                verdict, by = self._test([f"tests/{mistake.package}"], mistake)
        except ValueError as error:
            return "error of the list", str(error)
        finally:
            file.write_text(before, encoding="utf-8")
        return verdict, by

    def _in_fork(self, mistake: Mistake, items: Sequence[Any], texts: tuple[str, str]) -> tuple[str, str] | None:
        """Return the verdict of a fork that replaces the code; None where only an import shows the mistake."""
        module = importlib.import_module(_module_name(SOURCE.name / Path(mistake.file)))
        receive, send = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_run_items, args=(module, texts, items, send))
        process.start()
        send.close()
        try:
            found = receive.recv() if receive.poll(self.limit) else ("time limit", f"{self.limit:g} s")
        except EOFError:
            found = ("caught", "the end of the process")
        process.kill()
        process.join()
        return found

    def check(self, tests: Sequence[str]) -> tuple[bool, str]:
        """Return True if tests pass without a mistake, and what pytest printed."""
        passed = self._test(list(tests), None)[0] == "not caught"
        return passed, (self.copy / "output.txt").read_text(encoding="utf-8", errors="replace")

    def _test(self, tests: list[str], mistake: Mistake | None) -> tuple[str, str]:
        """Return the verdict and the first test that failed, of a fork that imports the copy as it stands."""
        output = self.copy / "output.txt"
        process = _CONTEXT.Process(target=_pytest, args=(tests, output, mistake is not None))
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


class _Session:
    """A plugin of pytest that plants mistakes in place of running the tests that were collected."""

    def __init__(self, planter: Planter, mistakes: Sequence[Mistake], report: Report, *, whole: bool) -> None:
        self.planter = planter
        self.mistakes = mistakes
        self.report = report
        self.whole = whole
        self.planted = 0

    def pytest_runtestloop(self, session: Any) -> bool:
        for mistake in self.mistakes:
            self.report(mistake, *self.planter.plant_one(mistake, session.items, whole=self.whole))
            self.planted += 1
        return True


def _run_items(module: types.ModuleType, texts: tuple[str, str], items: Sequence[Any], send: Any) -> None:
    """Run tests in this process, a fork, with the mistake; send the verdict and the first that failed, or None."""
    from _pytest.runner import runtestprotocol

    if not replace_code(module, *texts):
        send.send(None)
        os._exit(0)
    for item, following in zip(items, [*items[1:], None], strict=True):
        if any(part.failed for part in runtestprotocol(item, log=False, nextitem=following)):
            send.send(("caught", item.nodeid))
            os._exit(0)
    send.send(("not caught", ""))
    os._exit(0)


def _pytest(tests: list[str], output: Path, first_alone: bool) -> None:
    """Run pytest in this process, a fork, on the copy as it stands."""
    file = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("paperbench", "tests")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    import pytest

    code = pytest.main([*_OPTIONS, *(["--tb=line", "-x"] if first_alone else ["--tb=short", "--durations=5"]), *tests])
    sys.stdout.flush()
    os._exit(int(code))


def _belongs(nodeid: str, test: str) -> bool:
    """Return True if a collected test is `test`, or in the file, folder or group of parameters that it names."""
    return nodeid == test or nodeid.startswith((f"{test}::", f"{test}/", f"{test}["))


@contextlib.contextmanager
def _muted(output: Path) -> Iterator[None]:
    """Send what the process prints to a file, and to where it went before afterwards."""
    kept = os.dup(1), os.dup(2)
    file = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for number in (file, *kept):
            os.close(number)


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
