"""What a run leaves: its configuration, its results and its checkpoints; and the tables of scores that another program wrote."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from paperbench.config.compose import compose
from paperbench.config.validate import dump, load_file
from paperbench.engine.checkpoints import CheckpointStore, load_for_evaluation
from paperbench.engine.rundir import RunDirectory
from paperbench.rca.scores_task import read_scores
from paperbench.records.record import read_run
from tests.fuzz.damage import Rng, damaged_bytes, damaged_numbers, damaged_structure, damaged_text, pick
from tests.fuzz.runs import Read


@cache
def _config() -> dict[str, Any]:
    return dump(compose("vae", ["scale=smoke"]).config)


def _damaged(text: str, value: Any, write: Any, rng: Rng) -> bytes:
    kind = int(rng.integers(4))
    if kind == 0:
        return damaged_bytes(text.encode(), rng)
    if kind == 1:
        return write(damaged_structure(value, rng)).encode("utf-8", "surrogatepass")
    return (damaged_text if kind == 2 else damaged_numbers)(text, rng).encode("utf-8", "surrogatepass")


def read_config(rng: Rng, folder: Path) -> None:
    """`config.yaml` of a run is damaged, then read as `paperbench resume` reads it."""
    content = _damaged(yaml.safe_dump(_config()), _config(), _yaml, rng)
    (folder / "config.yaml").write_bytes(content)
    load_file(folder / "config.yaml")
    RunDirectory(folder).config()


def _yaml(value: Any) -> str:
    try:
        return yaml.safe_dump(value)
    except Exception:  # values that YAML cannot write are no input
        return "{"


_STATUS = {"state": "done", "step": 40, "steps": 40, "updated": "2026-01-01T00:00:00+00:00"}
_RESULTS = {
    "schema_version": 1, "experiment": "vae", "task": "vae-train", "scale": "smoke", "seed": 0, "status": "done",
    "data": "digits", "metrics": {"test/bound": -120.5, "seconds": 3.5}, "seconds": 4.0, "device": "cpu", "precision": "float32",
}  # fmt: skip


def read_record(rng: Rng, folder: Path) -> None:
    """One of a run's files is damaged, then read as `paperbench runs` and `report` do: that answers always, with its faults."""
    files: dict[str, Any] = {"config.yaml": _config(), "status.json": _STATUS, "results.json": _RESULTS}
    name = pick(rng, list(files))
    for file, value in files.items():
        write = _yaml if file.endswith("yaml") else json.dumps
        text = write(value)
        (folder / file).write_bytes(_damaged(text, value, write, rng) if file == name else text.encode())
    record = read_run(folder)
    assert record.state
    for value in record.metrics.values():
        assert math.isfinite(value)
    for part in ("experiment", "task", "scale", "seed", "data", "flat_config", "step", "steps", "best", "updated", "seconds",
                 "message", "headline", "log", "history", "figures", "log_tail", "facts"):  # fmt: skip
        getattr(record, part)


@cache
def _state() -> dict[str, Any]:
    return {"module": {"weight": torch.arange(6.0), "bias": torch.ones(2)}, "step": 3}


def read_checkpoint(rng: Rng, folder: Path) -> None:
    """A checkpoint or its manifest is damaged: it gives the weights that were saved, or an error."""
    store = CheckpointStore(folder / "checkpoints")
    store.save(_state(), step=3)
    path = pick(rng, sorted(path for path in (folder / "checkpoints").iterdir() if path.suffix in (".pt", ".json")))
    path.write_bytes(damaged_bytes(path.read_bytes(), rng))
    where = folder if rng.integers(2) else folder / "checkpoints" / "last.pt"
    state, step, _ = load_for_evaluation(where, which="last")
    assert step == 3
    assert all(torch.equal(state["module"][name], value) for name, value in _state()["module"].items())


_SCORES = "case,label,reference,score,truth\n" + "".join(
    f"c{case},liver,r{reference},0.{5 + case}{reference},0.6\n" for case in range(3) for reference in range(3)
)


def read_score_table(rng: Rng, folder: Path) -> None:
    """A table of scores is damaged: every score that is read is a number of 0 or more."""
    path = folder / "scores.csv"
    path.write_bytes(
        damaged_bytes(_SCORES.encode(), rng)
        if rng.integers(3) == 0
        else pick(rng, [damaged_text, damaged_numbers])(_SCORES, rng).encode("utf-8", "surrogatepass")
    )
    masks, _ = read_scores(path)
    for mask in masks:
        assert mask.scores
        assert all(score >= 0 or math.isnan(score) for _, score in mask.scores)
        assert mask.real >= 0 or math.isnan(mask.real)


TARGETS: dict[str, Read] = {
    "config": read_config,
    "run-files": read_record,
    "checkpoint": read_checkpoint,
    "score-table": read_score_table,
}
