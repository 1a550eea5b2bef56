"""`python -m tests.fuzz --count 1500`: so many damaged inputs of every target, and a table of what became of them."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.fuzz.runs import Outcome, fuzz, table
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1500, help="inputs of each target")
    parser.add_argument("--seed", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", action="append", default=[], help="targets whose name contains this", metavar="TEXT")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes: dict[str, Outcome] = {}
    for name, read in TARGETS.items():
        if options.only and not any(text in name for text in options.only):
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            outcomes[name] = fuzz(read, Path(folder), count=options.count, seed=options.seed)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        for number, what in outcomes[name].failures[:5]:
            print(f"  input {number}: {what}", file=sys.stderr, flush=True)
    print(table(outcomes))
    return int(any(outcome.failures for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
