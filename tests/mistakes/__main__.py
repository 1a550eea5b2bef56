"""Plants each mistake in a copy of the source, runs the tests that should see it, and prints which did.

    uv run python -m tests.mistakes                     # all that no earlier call saw caught
    uv run python -m tests.mistakes --package vae -j 2
    uv run python -m tests.mistakes --only NAME --fresh --whole

What was caught is kept in `outputs/mistakes.jsonl`, so that a stopped call goes on where it was. Needs `os.fork`: the program and
the tests are imported once, and every mistake is planted in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty
from typing import Any

from tests.mistakes.listed import ROOT, Mistake, read_mistakes

RESULTS = ROOT / "outputs" / "mistakes.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant what the command line asks for; return 0 if every mistake was caught."""
    options = _options().parse_args(arguments)
    chosen = [
        mistake
        for mistake in read_mistakes()
        if (not options.only or mistake.name in options.only) and options.package in (None, mistake.package)
    ]
    if not chosen:
        sys.exit("no mistake of that name or package")
    known = {} if options.fresh else _known(options.results)
    if options.check:
        named = [test for mistake in chosen for test in _judges(mistake, known)]
        return _check(list(dict.fromkeys(named)), options)
    left = [mistake for mistake in chosen if known.get(mistake.name, {}).get("digest") != mistake.digest]
    missed: dict[str, str] = {}
    for mistake, verdict, by in _planted(left, options):
        print(f"{time.strftime('%H:%M:%S')} {verdict}: {mistake.name}{f' by {by}' if by else ''}", flush=True)
        if verdict == "caught":
            known[mistake.name] = {"name": mistake.name, "digest": mistake.digest, "by": by}
            _keep(options.results, known[mistake.name])
        else:
            missed[mistake.name] = verdict
    caught = [mistake for mistake in chosen if known.get(mistake.name, {}).get("digest") == mistake.digest]
    print(f"{len(caught)} of {len(chosen)} mistakes caught")
    for mistake in chosen:
        if mistake not in caught:
            print(f"  {missed.get(mistake.name, 'not planted')}: {mistake.package}, {mistake.name}")
    return 0 if len(caught) == len(chosen) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mistakes", description="plants mistakes, one at a time")
    parser.add_argument("--only", action="append", metavar="NAME", help="this mistake alone; may be given again")
    parser.add_argument("--package", help="the mistakes of this list")
    parser.add_argument("--whole", action="store_true", help="run the package's tests where the named ones see nothing")
    parser.add_argument("--fresh", action="store_true", help="plant again what an earlier call saw caught")
    parser.add_argument("--check", action="store_true", help="run the tests that caught them without any mistake")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="mistakes at a time")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for the tests of one mistake")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of what was caught")
    return parser


def _judges(mistake: Mistake, known: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the test that caught a mistake; before any did, those that should."""
    found = known.get(mistake.name, {})
    if found.get("digest") == mistake.digest:
        return [found["by"].removeprefix("tests/")]
    return list(mistake.tests)


def _check(tests: Sequence[str], options: argparse.Namespace) -> int:
    """Run tests without a mistake, in this process, those of a file together; return 0 if all pass.

    A test that fails without a mistake too has caught nothing.
    """
    from tests.mistakes.planting import Planter

    files: dict[str, list[str]] = {}
    for test in tests:
        files.setdefault(test.partition("::")[0], []).append(f"tests/{test}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="mistakes-") as scratch:
        planter = Planter(Path(scratch) / "0", limit=options.limit)
        for file, own in files.items():
            passed, text = planter.check(own)
            print(f"{time.strftime('%H:%M:%S')} {'pass' if passed else 'FAIL'}: {file}, {len(own)}", flush=True)
            if not passed or options.only:
                print(text, flush=True)
            failed += not passed
    return 1 if failed else 0


def _planted(mistakes: Sequence[Mistake], options: argparse.Namespace) -> Any:
    """Yield each mistake with its verdict and the test that gave it, as they come: (Mistake, str, str)."""
    context = multiprocessing.get_context("fork")
    work, done = context.Queue(), context.Queue()
    lists: dict[str, list[int]] = {}
    for number, mistake in enumerate(mistakes):
        lists.setdefault(mistake.package, []).append(number)
    for numbers in lists.values():  # those of one list together: they have their tests in common
        work.put(numbers)
    with tempfile.TemporaryDirectory(prefix="mistakes-") as scratch:
        workers = [
            context.Process(target=_work, args=(mistakes, work, done, Path(scratch) / str(number), options))
            for number in range(min(options.jobs, len(lists)))
        ]
        for worker in workers:
            work.put(None)
            worker.start()
        try:
            for _ in mistakes:
                while True:
                    try:
                        number, verdict, by = done.get(timeout=5)
                        break
                    except Empty:
                        if any(worker.exitcode for worker in workers):
                            sys.exit("a process that plants mistakes has ended; its error is above")
                yield mistakes[number], verdict, by
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()


def _work(mistakes: Sequence[Mistake], work: Any, done: Any, folder: Path, options: argparse.Namespace) -> None:
    from tests.mistakes.planting import Planter

    planter = Planter(folder, limit=options.limit)
    while (numbers := work.get()) is not None:
        place = {mistakes[number].name: number for number in numbers}
        planter.plant(
            [mistakes[number] for number in numbers],
            lambda mistake, verdict, by, place=place: done.put((place[mistake.name], verdict, by)),
            whole=options.whole,
        )


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
