"""`paperbench predict` and `paperbench export`: what the model of a trained run is used for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from paperbench.catalog import TASKS, TaskSpec
from paperbench.cli.guard import emit_json, print_error
from paperbench.cli.output import line, pair_lines
from paperbench.config.commands import command
from paperbench.config.paths import short
from paperbench.config.validate import config_hash, load_file, validate
from paperbench.engine.prediction import check_options, predict_of, takes
from paperbench.errors import EXIT_FAILED, ConfigError, DataError
from paperbench.records.launch import run_of


def _directory_of(run: Path) -> Path:
    """Return the folder of the run. Raises `ConfigError` where there is none; the run is an argument here, not a key."""
    try:
        return run_of(str(run))
    except ConfigError as error:
        raise ConfigError(*(text.replace("checkpoint=", "", 1) for text in error.mistakes)) from None


# --- predict ----------------------------------------------------------------------------------------------------------


def predict(
    run: Path,
    images: list[Path],
    *,
    output: Path | None,
    score_threshold: float | None,
    device: str | None,
    json_output: bool,
) -> None:
    """Draw the predictions for each image into one picture, and print them. Images that failed are named at the end."""
    directory = _directory_of(run)
    missing = {image: f"{image}: no such image file" for image in images if not image.is_file()}
    if len(missing) == len(set(images)):
        raise DataError("\n".join(missing.values()))
    task, config, resolved = load_file(directory / "config.yaml")
    predict_images = predict_of(task, directory)
    if device is not None:
        config = validate(task, {**resolved, "device": device})
    folder = output or directory / "figures" / "predictions"
    options: dict[str, Any] = {} if score_threshold is None else {"score_threshold": score_threshold}
    check_options(predict_images, options, directory)
    if takes(predict_images, "skip_damaged"):
        options["skip_damaged"] = True  # one of many does not cost the answers for the others
    found = iter(predict_images(config, directory, [path for path in images if path not in missing], folder, **options))
    predictions = [
        {"image": str(path), "picture": None, "error": missing[path]} if path in missing else next(found)
        for path in images
    ]
    if json_output:
        emit_json(predictions)
    else:
        _print_predictions(predictions)
    failed = [entry for entry in predictions if "error" in entry]
    for entry in failed:
        print_error(f"failed: {entry['error']}")
    if failed:
        print_error(f"{len(failed)} of {len(predictions)} images could not be used")
        raise typer.Exit(EXIT_FAILED)


def _print_predictions(predictions: Sequence[Mapping[str, Any]]) -> None:
    for entry in predictions:
        if "error" in entry:
            line(f"{entry['image']}: failed")
            continue
        line(f"{entry.get('image', '')} -> {short(Path(entry['picture']).absolute())}")
        for note in entry.get("notes", ()):
            line(f"  ({note})")
        if "label" in entry:
            line(f"  {entry['label']}  {entry['probability']:.2f}")
        for item in entry.get("detections", ()):
            box = ", ".join(f"{side:.0f}" for side in item["box"])
            line(f"  {item['class']:<14} {item['score']:.2f}  ({box})")
        if not entry.get("detections", True):
            line("  nothing found")


# --- export -----------------------------------------------------------------------------------------------------------


def export(run: Path, kind: str, *, output: Path | None, json_output: bool) -> None:
    """Write the trained model of a run in the format `kind`, and print how well it agrees with the run's own model."""
    directory = _directory_of(run)
    task, config, resolved = load_file(directory / "config.yaml")
    _check_exportable(task, kind, resolved)
    from paperbench.engine import export as exporter
    from paperbench.engine.export_formats import SUFFIXES, require

    require(kind)
    file = output or directory / "export" / f"model{SUFFIXES[kind]}"
    file = exporter.place_for(file)  # before the model is read
    module = importlib.import_module(task.module)
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
        _print_export(record, file)


def _check_exportable(task: TaskSpec, kind: str, resolved: dict[str, Any]) -> None:
    """Raise `ConfigError` for a run that has no model to write, or not in this format."""
    if task.takes_checkpoint:
        raise ConfigError(
            f"an evaluation has no model of its own: `{command('export', Path(str(resolved.get('checkpoint'))))}`"
        )
    if not task.exports:
        able = ", ".join(spec.name for spec in TASKS.values() if spec.exports)
        use = ". `paperbench predict RUN IMAGE` uses the run itself" if task.predicts else ""
        raise ConfigError(f"runs of task {task.name} cannot be exported; those of {able} can{use}")
    if kind not in task.exports:
        raise ConfigError(f"--format {kind}: models of task {task.name} can be written as {', '.join(task.exports)}")


def _print_export(record: dict[str, Any], file: Path) -> None:
    line(f"{short(file.absolute())}  ({record['bytes'] / 1e6:.1f} MB)")
    rows = [("weights", f"checkpoint of step {record['step']}"), ("what", record["meaning"])]
    for entry in record["inputs"]:
        rows.append(("input", f"{entry['name']}  {entry['type']} ({', '.join(map(str, entry['shape']))})"))
    rows += [("output", f"{entry['name']}  {entry['meaning']}") for entry in record["outputs"]]
    check = record["check"]
    each = ", ".join(
        f"{name} {agreement['max_abs_difference']:.2g} (at most {agreement['tolerance']:g})"
        for name, agreement in check["by_output"].items()
    )
    rows.append(("checked", f"on {check['inputs']} inputs against the run's model; largest difference: {each}"))
    pair_lines(rows)
