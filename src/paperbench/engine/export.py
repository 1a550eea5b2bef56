"""Write a trained model to a file for other programs, and keep the file only if, read back, it gives the same numbers.

A task's module offers `export_model(config, run_dir) -> Exportable`; its `TaskSpec.exports` names the formats. What is
written is compared with the run's own model on inputs of the kind it was trained on. A file that disagrees is removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paperbench.engine import export_formats as formats
from paperbench.engine.exportable import Exportable, Tensors
from paperbench.engine.files import explain_os_errors, replace_file, sync_directory, temporary_name, write_json
from paperbench.engine.outputs import output_file
from paperbench.errors import ConfigError, EnvironmentError_, ExportError

SCHEMA_VERSION = 1
KIND = "export"
_REMEDY = "name another place with --output"
FORMATS = tuple(formats.SUFFIXES)


def export(exportable: Exportable, kind: str, file: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write `file` in the format `kind` and `<file>.json` beside it, and return the content of the latter.

    `facts` name the origin of the model (run, experiment, task, hash of the configuration); they are stored with it. Raises
    `ConfigError` when this model cannot be written so, `ExportError` when what was written does not agree with the run's
    model, and `EnvironmentError_` when a library is missing or the place cannot be written. Then `file` is as it was before.
    Whatever is there is replaced: `place_for` refuses what may not be.
    """
    if kind in exportable.refused:
        raise ConfigError(f"--format {kind}: {exportable.refused[kind]}")
    if file.is_dir():
        raise EnvironmentError_(f"--output {file}: is a folder; name a file in it")
    formats.require(kind)
    metadata = {**{key: str(value) for key, value in facts.items()}, **exportable.metadata}
    record_file = _record_file(file)
    temporary = temporary_name(file)
    created = [folder for folder in file.absolute().parents if not folder.exists()]
    with explain_os_errors(file, remedy=_REMEDY):
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with explain_os_errors(file, remedy=_REMEDY):
            formats.write(exportable, kind, temporary, metadata)
        check = compare(exportable, formats.read(exportable, kind, temporary))
        _refuse_disagreement(exportable, kind, check)
        record = _record(exportable, kind, file, temporary, facts, check)
        with explain_os_errors(file, remedy=_REMEDY):
            record_file.unlink(missing_ok=True)
            replace_file(temporary, file)
        sync_directory(file.parent)
        write_json(record_file, record)
    finally:
        with suppress(OSError):
            temporary.unlink()
        with suppress(OSError):  # ends at the first that is not empty: after a success at once
            for folder in created:
                folder.rmdir()
    return record


def place_for(file: Path) -> Path:
    """Return the file to write for `file`. It, and its record, may replace an earlier export alone; see `outputs.output_file`."""
    file = output_file(file, what="a model that `paperbench export` wrote", is_ours=formats.is_export)
    output_file(_record_file(file), what="the record of an export", is_ours=_is_record)
    return file


def _record_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _is_record(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == KIND


# --- the check --------------------------------------------------------------------------------------------------------


def compare(exportable: Exportable, exported: Callable[[Tensors], Tensors]) -> dict[str, float]:
    """The largest absolute difference of each output between `exported` and the run's own model, over all inputs."""
    ours = exportable.reference or exportable.module
    worst = {output.name: 0.0 for output in exportable.outputs}
    for inputs in exportable.inputs:
        with torch.inference_mode():
            expected = ours(*inputs)
        expected = expected if isinstance(expected, tuple) else (expected,)
        answer = exported(inputs)
        found = (exportable.differences or _elementwise(exportable))(expected, answer)
        for name, difference in found.items():
            # A comparison with NaN is false: it must end as the worst, not pass.
            worst[name] = difference if not difference <= worst[name] else worst[name]
    return worst


def _elementwise(exportable: Exportable) -> Callable[[Tensors, Tensors], dict[str, float]]:
    def differences(expected: Tensors, answer: Tensors) -> dict[str, float]:
        names = (output.name for output in exportable.outputs)
        return {name: _largest(a, b) for name, a, b in zip(names, expected, answer, strict=True)}

    return differences


def _largest(expected: Tensor, answer: Tensor) -> float:
    if expected.shape != answer.shape:
        return float("inf")
    return float((expected.double() - answer.detach().double()).abs().max()) if expected.numel() else 0.0


def _refuse_disagreement(exportable: Exportable, kind: str, check: Mapping[str, float]) -> None:
    wrong = [
        f"{output.name} differs by {check[output.name]:.3g}, {output.tolerance:g} is allowed"
        if isfinite(check[output.name])
        else f"{output.name} cannot be matched with the run's"
        for output in exportable.outputs
        if not check[output.name] <= output.tolerance
    ]
    if wrong:
        raise ExportError(
            f"the {kind} file does not give what the run's model gives on {len(exportable.inputs)} inputs and was "
            f"removed: {'; '.join(wrong)}"
        )


# --- the record -------------------------------------------------------------------------------------------------------


def _record(
    exportable: Exportable, kind: str, file: Path, written: Path, facts: Mapping[str, Any], check: Mapping[str, float]
) -> dict[str, Any]:
    with written.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "format": kind,
        "file": file.name,
        "bytes": written.stat().st_size,
        "sha256": digest,
        **facts,
        "step": exportable.step,
        "meaning": exportable.meaning,
        "inputs": [_described(exportable, index) for index in range(len(exportable.input_names))],
        "outputs": [{"name": output.name, "meaning": output.meaning} for output in exportable.outputs],
        "metadata": dict(exportable.metadata),
        "check": {
            "inputs": len(exportable.inputs),
            "max_abs_difference": max(check.values()),
            "by_output": {
                output.name: {"max_abs_difference": check[output.name], "tolerance": output.tolerance}
                for output in exportable.outputs
            },
        },
        "versions": formats.versions(kind),
    }


def _described(exportable: Exportable, index: int) -> dict[str, Any]:
    name, tensor = exportable.input_names[index], exportable.inputs[0][index]
    varying = exportable.dynamic.get(name, {})
    shape = [varying.get(axis, side) for axis, side in enumerate(tensor.shape)]
    return {"name": name, "type": str(tensor.dtype).removeprefix("torch."), "shape": shape}
