"""Commands that documents show and no test runs, each with its reason.

A pattern is matched against the command as it stands, with `*` for anything. One that matches nothing any more is a mistake.
"""

from __future__ import annotations

NOT_RUN: dict[str, str] = {
    "pip install *": "installs from the network",
    "uv run pytest": "is what runs this",
    "paperbench sweep --resume *": "wants the id of a sweep that exists; tests/cli/test_sweeping.py goes on with some",
    "paperbench sweep --cancel *": "wants a sweep that was left to Slurm; tests/clusters/test_slurm.py cancels one",
    "bash .ci/run": "runs this suite, and more",
    "ray start *": "starts a service on this machine and joins others to it; tests/sweeps/launchers starts clusters of its own",
    "torchrun *": "waits for a second host; tests/engine/test_torchrun.py plays both",
    "sbatch *": "needs a Slurm cluster",
    "uv run python -m benchmarks.*": "measures for minutes, on data that tests do not have",
}
