"""`paperbench export`: a trained model in a file for other programs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from paperbench.catalog import TASKS, TaskSpec
from paperbench.cli.guard import emit_json
from paperbench.cli.output import line
from paperbench.cli.running import run_of
from paperbench.config.paths import short
from paperbench.config.validate import config_hash, load_file
from paperbench.errors import ConfigError


def export(run: Path, kind: str, *, output: Path | None, json_output: bool) -> None:
    """Writes the trained model of a run in the format `kind` and says how well it agrees with the run's own model."""
    try:
        directory = run_of(str(run))
    except ConfigError as error:
        raise ConfigError(*(text.replace("checkpoint=", "", 1) for text in error.mistakes)) from None
    task, config, resolved = load_file(directory / "config.yaml")
    _refuse(task, kind, resolved)
    from paperbench.engine import export as exporter
    from paperbench.engine.export_formats import SUFFIXES, require

    require(kind)
    module = importlib.import_module(task.module)
    file = output or directory / "export" / f"model{SUFFIXES[kind]}"
    facts = {
        "run": directory.name,
        "experiment": str(resolved.get("experiment", "")),
        "task": task.name,
        "config_hash": config_hash(resolved),
    }
    record = exporter.export(module.export_model(config, directory), kind, file, facts)
    if json_output:
        emit_json({**record, "path": str(file)})
    else:
        _print(record, file)


def _refuse(task: TaskSpec, kind: str, resolved: dict[str, Any]) -> None:
    """Raises `ConfigError` for a run that has no model to write, or not in this format."""
    if task.takes_checkpoint:
        raise ConfigError(f"an evaluation has no model of its own: `paperbench export {resolved.get('checkpoint')}`")
    if not task.exports:
        able = ", ".join(spec.name for spec in TASKS.values() if spec.exports)
        raise ConfigError(f"runs of task {task.name} cannot be exported; those of {able} can")
    if kind not in task.exports:
        raise ConfigError(f"--format {kind}: models of task {task.name} can be written as {', '.join(task.exports)}")


def _print(record: dict[str, Any], file: Path) -> None:
    line(f"{short(file.absolute())}  ({record['bytes'] / 1e6:.1f} MB)")
    rows = [("weights", f"checkpoint of step {record['step']}"), ("what", record["meaning"])]
    for entry in record["inputs"]:
        rows.append(("input", f"{entry['name']}  {entry['type']} ({', '.join(map(str, entry['shape']))})"))
    rows += [("output", f"{entry['name']}  {entry['meaning']}") for entry in record["outputs"]]
    check = record["check"]
    each = ", ".join(
        f"{name} {found['max_abs_difference']:.2g} (at most {found['tolerance']:g})"
        for name, found in check["by_output"].items()
    )
    rows.append(("checked", f"on {check['inputs']} inputs against the run's model; largest difference: {each}"))
    for name, text in rows:
        line(f"  {name.ljust(7)}  {text}")
