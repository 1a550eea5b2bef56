"""What a sweep costs beside its runs, and what it survives.

    uv run python -m benchmarks.sweep overhead [--runs 50] [--jobs 2]
    uv run python -m benchmarks.sweep faults   [--runs 200] [--jobs 2] [--kills 60] [--seed 0]

`overhead`: `paperbench sweep faster-rcnn --smoke` over seeds, as a person would give it. The wall time of the sweep, from its
first run's start to its last run's end, is compared with the sum of the runs' own times divided by the jobs; the start of the
program and of the process that forks the runs are told apart. A run's own time is `seconds` of its results.json: from
the moment its process has the directory to the moment the results are written.

`faults`: runs of a small network, each of which saves every second step, while SIGKILL strikes runs, the process that starts
them, and the sweep, which is then given again. Every run must end completed once, with the results, the record and the
weights of the same sweep left in peace, bit for bit. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.engine import toy
from tests.sweeps import disturbed, toys

from benchmarks.common import machine, write
from paperbench.records.record import read_status
from paperbench.sweeps import record

PROGRAM = [sys.executable, "-m", "paperbench", "sweep"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "faults"))
    parser.add_argument("--runs", type=int, help="default: 50 for overhead, 200 for faults")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=60, help="of runs; a tenth as many of the sweep and of its server")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and targets of the kills")
    parser.add_argument("--dry", action="store_true", help="print, and leave the committed CSV as it is")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="paperbench-bench-") as folder:
        if given.what == "overhead":
            rows = overhead(Path(folder), given.runs or 50, given.jobs)
        else:
            rows = faults(Path(folder), given.runs or 200, given.jobs, given.kills, given.seed)
    rows = [{**row, **machine("cpu")} for row in rows]
    for row in rows:
        print(json.dumps(row, indent=2))
    if not given.dry:
        print(f"written to {write(f'sweep-{given.what}-cpu', rows)}")


# --- overhead ---------------------------------------------------------------------------------------------------------


def overhead(folder: Path, runs: int, jobs: int) -> list[dict[str, Any]]:
    """One row: the sweep's wall time, its share beyond the runs, and where that went. Times in seconds."""
    command = [*PROGRAM, "faster-rcnn", "--smoke", f"seed=range(0,{runs})", "--jobs", str(jobs), "--json"]
    began = time.time()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    ended = time.time()
    if done.returncode:
        raise SystemExit(done.stderr)
    document = json.loads(done.stdout)
    events = record.events(folder / document["directory"])
    times = [float(run["results"]["seconds"]) for run in document["runs"]]
    starts = {event["run"]: _moment(event) for event in events if event["event"] == "started"}
    ends = {event["run"]: _moment(event) for event in events if event["event"] == "ended"}
    first = min(_session_began(folder / run["directory"]) for run in document["runs"])
    wall = max(ends.values()) - first
    trained = sum(times) / jobs
    return [
        {
            "runs": runs,
            "jobs": jobs,
            "wall of the sweep": round(wall, 2),
            "sum of the runs / jobs": round(trained, 2),
            "overhead, percent": round(100 * (wall / trained - 1), 1),
            "start of the program": round(min(starts.values()) - began, 2),
            "start of the server": round(first - min(starts.values()), 2),
            "end of the program": round(ended - max(ends.values()), 2),
            "a run, mean": round(sum(times) / runs, 3),
            "between two runs of a slot, mean": round((wall * jobs - sum(times)) / runs, 3),
            "of it: order to the run's own time": round(_mean_wait(folder, document, starts, jobs), 3),
            "of it: results to the scheduler's notice": round(_mean_notice(folder, document, ends), 3),
            "of it: idle slots at the end": round(_idle(ends, jobs) / runs, 3),
        }
    ]


def _mean_wait(folder: Path, document: dict[str, Any], starts: dict[str, float], jobs: int) -> float:
    """Mean seconds from the order to start a run to the beginning of its own time, of the runs that found the server ready."""
    later = sorted(document["runs"], key=lambda run: starts[run["hash"]])[jobs:]
    waits = [_session_began(folder / run["directory"]) - starts[run["hash"]] for run in later]
    return sum(waits) / len(waits) if waits else 0.0


def _mean_notice(folder: Path, document: dict[str, Any], ends: dict[str, float]) -> float:
    """Mean seconds from a run's results to the moment the scheduler saw it done: last files, the process's end, its burial."""
    notices = [
        ends[run["hash"]] - (folder / run["directory"] / "results.json").stat().st_mtime for run in document["runs"]
    ]
    return sum(notices) / len(notices)


def _idle(ends: dict[str, float], jobs: int) -> float:
    """Seconds that slots had nothing left to do while the last run went on: a matter of how the runs come out."""
    last = sorted(ends.values())[-jobs:]
    return sum(last[-1] - end for end in last)


def _session_began(run: Path) -> float:
    """When the run's own time began, of a run that was done in one session."""
    results = run / "results.json"
    return results.stat().st_mtime - float(json.loads(results.read_text())["seconds"])


def _moment(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


# --- faults -----------------------------------------------------------------------------------------------------------


def faults(folder: Path, runs: int, jobs: int, kills: int, seed: int) -> list[dict[str, Any]]:
    """One row: how often what was killed, and that nothing differs. Raises `SystemExit` with what does."""
    environment = {**os.environ, **toy.site(folder / "site"), "OMP_NUM_THREADS": "1"}
    conf = toys.conf(folder / "conf", pace=0.1)

    def command(root: Path) -> list[str]:
        options = [f"output.root={root}", "--jobs", str(jobs), "--conf-dir", str(conf)]
        return [*PROGRAM, "toy", f"seed=range(0,{runs})", *options]

    began = time.monotonic()
    with (folder / "calm.txt").open("wb") as said:
        subprocess.run(command(folder / "calm"), env=environment, cwd=folder, stdout=said, stderr=said, check=True)
    calm = time.monotonic() - began
    with (folder / "wild.txt").open("wb") as said:
        account = disturbed.disturb(
            lambda: subprocess.Popen(
                command(folder / "wild"), env=environment, cwd=folder, stdout=said, stderr=said, start_new_session=True
            ),
            kills={"run": kills, "server": kills // 10, "sweep": kills // 10},
            seed=seed,
            pauses=(0.2, 1.2),
            limit=100 * calm,
        )
    (sweep,) = (folder / "wild").glob("toy/sweeps/*")
    (other,) = (folder / "calm").glob("toy/sweeps/*")
    found = disturbed.differences(sweep, other)
    if found:
        raise SystemExit("\n".join(found))
    sessions = sum(event["event"] == "started" for event in record.events(sweep))
    return [
        {
            "runs": runs,
            "jobs": jobs,
            **{f"kills of a {target}": count for target, count in account.kills.items()},
            "commands given": len(account.exit_codes),
            "sessions of runs": sessions,
            "runs completed once": sum(read_status(run).state == "done" for run in disturbed.runs_of(sweep).values()),
            "results that differ": len(found),
            "seconds": round(account.seconds, 1),
            "seconds in peace": round(calm, 1),
        }
    ]


if __name__ == "__main__":
    main()
