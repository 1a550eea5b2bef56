"""`paperbench predict`: a trained run looks at pictures."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from paperbench.catalog import TASKS, TaskSpec
from paperbench.cli.guard import emit_json
from paperbench.cli.output import line
from paperbench.cli.running import run_of
from paperbench.config.paths import short
from paperbench.config.validate import load_file, validate
from paperbench.errors import ConfigError, DataError


def predict(
    run: Path,
    images: list[Path],
    *,
    output: Path | None,
    score_threshold: float | None,
    device: str | None,
    json_output: bool,
) -> None:
    """Draws one picture per image and says what was found."""
    try:
        directory = run_of(str(run))
    except ConfigError as error:
        raise ConfigError(*(text.replace("checkpoint=", "", 1) for text in error.mistakes)) from None
    missing = [f"{image}: no such image file" for image in images if not image.is_file()]
    if missing:
        raise DataError("\n".join(missing))
    task, config, resolved = load_file(directory / "config.yaml")
    module = _predicting_module(task)
    if device is not None:
        config = validate(task, {**resolved, "device": device})
    folder = output or directory / "figures" / "predictions"
    options: dict[str, Any] = {} if score_threshold is None else {"score_threshold": score_threshold}
    found = module.predict(config, directory, images, folder, **options)
    if json_output:
        emit_json(found)
        return
    for entry in found:
        line(f"{entry.get('image', '')} -> {short(Path(entry['picture']).absolute())}")
        if "label" in entry:
            line(f"  {entry['label']}  {entry['probability']:.2f}")
        for item in entry.get("detections", ()):
            box = ", ".join(f"{side:.0f}" for side in item["box"])
            line(f"  {item['class']:<14} {item['score']:.2f}  ({box})")
        if not entry.get("detections", True):
            line("  nothing found")


def _predicting_module(task: TaskSpec) -> Any:
    names = [task.module, *([TASKS[task.evaluated_by].module] if task.evaluated_by else [])]
    for name in names:
        module = importlib.import_module(name)
        if hasattr(module, "predict"):
            return module
    raise ConfigError(f"runs of task {task.name} cannot be shown pictures")
