"""Plants each mistake in a copy of the source, runs the tests that should see it, and prints which did.

    uv run python -m tests.mistakes                     # all that no earlier call saw caught
    uv run python -m tests.mistakes --package vae -j 2
    uv run python -m tests.mistakes --only NAME --fresh --whole

A result is kept in `outputs/mistakes.jsonl`, so that a stopped call goes on where it was. Needs `os.fork`: torch is imported once,
and every mistake gets a process of its own that imports the copy of the program afresh.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from tests.mistakes.listed import ROOT, SOURCE, Mistake, read_mistakes

RESULTS = ROOT / "outputs" / "mistakes.jsonl"
PARTS = ("src", "conf", "tests", "docs", "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
"""What the tests read of the tree."""

_CONTEXT = multiprocessing.get_context("fork")


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant what the command line asks for; return 0 if every mistake was caught."""
    options = _options().parse_args(arguments)
    mistakes = read_mistakes()
    chosen = [
        mistake
        for mistake in mistakes
        if (not options.only or mistake.name in options.only) and options.package in (None, mistake.package)
    ]
    if not chosen:
        sys.exit("no mistake of that name or package")
    known = {} if options.fresh else _known(options.results)
    left = [mistake for mistake in chosen if known.get(mistake.name, {}).get("digest") != mistake.digest]
    _warm_up()
    with tempfile.TemporaryDirectory(prefix="mistakes-") as scratch:
        copies: Queue[Path] = Queue()
        for number in range(options.jobs):
            copies.put(_copy(Path(scratch) / str(number)))

        def plant(mistake: Mistake) -> None:
            copy = copies.get()
            try:
                result = {"name": mistake.name, "digest": mistake.digest, **_plant(mistake, copy, options)}
            finally:
                copies.put(copy)
            _report(mistake, result)
            if result["verdict"] == "caught":
                known[mistake.name] = result
                _keep(options.results, result)

        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(plant, left))
    caught = [mistake for mistake in chosen if known.get(mistake.name, {}).get("digest") == mistake.digest]
    print(f"{len(caught)} of {len(chosen)} mistakes caught")
    for mistake in chosen:
        if mistake not in caught:
            print(f"  not caught: {mistake.package}, {mistake.name}")
    return 0 if len(caught) == len(chosen) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mistakes", description="plants mistakes, one at a time")
    parser.add_argument("--only", action="append", metavar="NAME", help="this mistake alone; may be given again")
    parser.add_argument("--package", help="the mistakes of this list")
    parser.add_argument("--whole", action="store_true", help="run the package's tests where the named ones see nothing")
    parser.add_argument("--fresh", action="store_true", help="plant again what an earlier call saw caught")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="mistakes at a time")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for the tests of one mistake")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of what was caught")
    return parser


def _plant(mistake: Mistake, copy: Path, options: argparse.Namespace) -> dict[str, str]:
    """Plant one mistake in a copy of the tree, run its tests, and take it out again."""
    file = copy / SOURCE / mistake.file
    before = file.read_text(encoding="utf-8")
    try:
        file.write_text(mistake.planted(before), encoding="utf-8")
        verdict, by = _test(copy, [f"tests/{test}" for test in mistake.tests], options.limit)
        if verdict == "not caught" and options.whole:
            verdict, by = _test(copy, [f"tests/{mistake.package}"], options.limit)
    except ValueError as error:
        return {"verdict": "error of the list", "by": str(error)}
    finally:
        file.write_text(before, encoding="utf-8")
    return {"verdict": verdict, "by": by}


def _test(copy: Path, tests: list[str], limit: float) -> tuple[str, str]:
    """Return the verdict and the first test that failed."""
    output = copy / "output.txt"
    process = _CONTEXT.Process(target=_pytest, args=(copy, tests, output))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return "time limit", f"{limit:g} s"
    text = output.read_text(encoding="utf-8", errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    if process.exitcode == 0:
        return "not caught", ""
    if process.exitcode == 1 and failed:
        return "caught", failed[1]
    return "error of the list", " ".join(text[-300:].split())


def _pytest(copy: Path, tests: list[str], output: Path) -> None:
    """Run pytest in this process, a fork, on the copy alone."""
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy / "src")
    for name in [name for name in sys.modules if name == "tests" or name.startswith("tests.")]:
        del sys.modules[name]
    sys.path[:] = [str(copy / "src"), str(copy), *(entry for entry in sys.path if entry not in ("", str(ROOT)))]
    import pytest

    import paperbench

    assert str(copy) in str(paperbench.__file__)
    options = ["-q", "-x", "-n0", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
    # What is imported already cannot be rewritten, and need not be.
    code = pytest.main([*options, "-W", "ignore::pytest.PytestAssertRewriteWarning", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def _warm_up() -> None:
    """Import what takes seconds, and nothing of the program."""
    import cv2
    import pydantic
    import pytest
    import scipy.stats
    import sklearn.svm
    import torch
    import torchvision  # noqa: F401

    assert "paperbench" not in sys.modules, "the fork must import the copy"
    torch.set_num_threads(1)
    _ = cv2, pydantic, pytest, scipy, sklearn


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


def _report(mistake: Mistake, result: dict[str, str]) -> None:
    by = f" by {result['by']}" if result["by"] else ""
    print(f"{time.strftime('%H:%M:%S')} {result['verdict']}: {mistake.name}{by}", flush=True)


def _known(file: Path) -> dict[str, dict[str, str]]:
    if not file.is_file():
        return {}
    found = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return {result["name"]: result for result in found}


def _keep(file: Path, result: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    sys.exit(main())
