"""`paperbench data`: list data sets, download them, check them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paperbench.catalog import DATASETS, DatasetSpec
from paperbench.cli.guard import emit_json
from paperbench.cli.output import folded_table, line, pair_lines
from paperbench.config.commands import override
from paperbench.config.paths import data_root, expanded, options, search_path
from paperbench.config.quoting import quoted
from paperbench.config.suggest import nearest
from paperbench.engine.published_data import departures_of
from paperbench.errors import ConfigError


def found_under(spec: DatasetSpec, root: Path) -> list[Path]:
    """Return the folders below `root` that match the fixed first part of the data set's layout."""
    fixed: list[str] = []
    for part in spec.layout.split("/"):
        if "{" in part:
            break
        fixed.append(f"{part.partition('<')[0]}*" if "<" in part else part)
    if not spec.layout or not fixed or not root.is_dir():  # generated, or a folder of any name
        return []
    return sorted(path for path in root.glob("/".join(fixed)) if path.is_dir())


def ls(root: Path | None, *, json_output: bool) -> None:
    """Print the catalog's data sets, and which of them are below the root."""
    base = expanded(root).absolute() if root else data_root()
    found = {spec.name: found_under(spec, base) for spec in DATASETS.values()}
    if json_output:
        emit_json(
            {
                "root": str(base),
                "datasets": [
                    {
                        "name": spec.name,
                        "summary": spec.summary,
                        "layout": spec.layout,
                        "homepage": spec.homepage,
                        "generated": not spec.layout,
                        "found": [str(path) for path in found[spec.name]],
                        "downloads": list(spec.archives),
                    }
                    for spec in DATASETS.values()
                ],
            }
        )
        return
    line(f"data root: {base}")
    folded_table(
        ("name", "found", "what", "layout below the root"),
        ((spec.name, _state(spec, found[spec.name], base), spec.summary, spec.layout) for spec in DATASETS.values()),
    )


def _state(spec: DatasetSpec, found: list[Path], base: Path) -> str:
    if not spec.layout:
        return "generated"
    if spec.layout.startswith("{"):
        return "where data.root says"
    return ", ".join(path.relative_to(base).as_posix() for path in found) or "no"


def dataset_named(name: str) -> DatasetSpec:
    """Return the data set of that name. Raises `ConfigError` with the nearest names."""
    if name in DATASETS:
        return DATASETS[name]
    near = nearest(name, DATASETS)
    raise ConfigError(f"{name}: no such data set. {'Nearest' if near else 'Data sets'}: {', '.join(near or DATASETS)}")


def get(name: str, root: Path | None, *, json_output: bool) -> None:
    """Download the archives of a data set."""
    spec = dataset_named(name)
    if not spec.layout:
        raise ConfigError(f"{name}: is generated, there is nothing to download")
    if not spec.archives:
        where = (
            f"see {spec.homepage}" if spec.homepage else "these are your own files: data.root=DIR names their folder"
        )
        raise ConfigError(f"{name}: cannot be downloaded from here; {where}")
    from paperbench.cli.display import make_reporter
    from paperbench.data import downloads

    base = expanded(root).absolute() if root else data_root()
    reporter = make_reporter(json_output=json_output)
    try:
        placed = [downloads.get(archive, base, reporter) for archive in spec.archives]
    finally:
        reporter.close()
    if json_output:
        emit_json({"name": name, "root": str(base), "paths": [str(path) for path in placed]})
    else:
        line(f"{name}: {', '.join(dict.fromkeys(map(str, placed)))}")
        line(f"use it with {quoted(f'data={name}', override('data.root', base))}")


def check(name: str, overrides: list[str] | None, *, json_output: bool, conf_dir: Path | None) -> None:
    """Compose a configuration with the named data, and let its reader check all of them."""
    from paperbench.config.compose import compose

    given = list(overrides or ())
    experiments = options("experiment", search_path(conf_dir))
    if name in DATASETS:
        composed = compose(_experiment_for(DATASETS[name], conf_dir), [f"data={name}", *given], conf_dir=conf_dir)
    elif name not in experiments:
        known = [*DATASETS, *experiments]
        near = nearest(name, known)
        raise ConfigError(
            f"{name}: no such data set or experiment. {'Nearest' if near else 'There are'}: {', '.join(near or known)}"
        )
    else:
        composed = compose(name, given, conf_dir=conf_dir)
    data = getattr(composed.config, "data", None)
    if data is None:
        raise ConfigError(f"{name}: task {composed.task.name} reads no data set")
    module, _, function = DATASETS[data.name].checker.partition(":")
    counts: Mapping[str, Any] = getattr(importlib.import_module(module), function)(data)
    departures = departures_of(dataclasses.asdict(data))
    if json_output:
        emit_json({**counts, **({"departures": list(departures)} if departures else {})})
        return
    line(f"{data.name}: {'read without faults, but not the published set' if departures else 'no faults'}")
    for text in departures:
        line(f"  {text}")
    pair_lines(
        (str(key), ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value))
        for key, value in counts.items()
    )


def _experiment_for(spec: DatasetSpec, conf_dir: Path | None) -> str:
    """Return an experiment that can use the data set: its configuration says how the data are read."""
    from paperbench.config.experiments import list_experiments

    able = [e for e in list_experiments(search_path(conf_dir)) if e.task in spec.tasks]
    if not able:
        raise ConfigError(f"{spec.name}: no experiment uses this data set")
    # The program's own before a user's: theirs may set keys of another data set.
    return sorted(able, key=lambda e: not e.shipped)[0].name
