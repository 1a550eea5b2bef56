"""`paperbench init`: look at a folder, write an experiment for it, check the data, and say how to train."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import yaml

from paperbench.catalog import DATASETS, TASKS
from paperbench.cli.guard import emit_json
from paperbench.cli.options import RunOptions
from paperbench.cli.output import folded_line, line
from paperbench.config.commands import command
from paperbench.config.experiments import Experiment, list_experiments
from paperbench.config.paths import expanded, options, refuse_reserved, search_path, short
from paperbench.config.suggest import nearest
from paperbench.data.recognition import Recognised, recognise
from paperbench.engine.files import explain_os_errors, write_atomic
from paperbench.errors import ConfigError

_FIRST_CHOICE = {
    "voc": "faster-rcnn",
    "coco": "faster-rcnn",
    "yolo": "faster-rcnn",
    "folders": "stn-birds",
    "rca": "rca",
}
_WITH_MASKS = "mask-rcnn"
_LAYOUTS = {
    "voc": "VOC (VOCdevkit/VOC<name>, or an XML file for each image)",
    "coco": "COCO (JSON files with images, annotations and categories)",
    "yolo": "YOLO (data.yaml, or labels/*.txt)",
    "folders": "a folder of pictures for each class",
    "rca": "images and masks (imagesTs, predictions, imagesTr, labelsTr)",
}
_DATA = "override /data"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_OWN_CONF = Path("conf")


def init(
    name: str,
    folder: Path,
    *,
    kind: str | None,
    experiment: str | None,
    check: bool,
    json_output: bool,
    conf_dir: Path | None,
) -> None:
    """Write `conf/experiment/NAME.yaml` for the data in `folder`, check them, and print the command that trains.

    Raises `ConfigError` for a name that is taken, for a folder in which nothing is recognised, or more than one layout and none is
    chosen, and `DataError` for the faults that the check finds; the file is written by then, and can be corrected.
    """
    file = _new_file(name, conf_dir)
    found = _chosen(folder, kind)
    base = _base(found, experiment, conf_dir)
    verb = TASKS[base.task].verb
    content = _content(name, found, base, command(verb, name))
    with explain_os_errors(file, remedy="choose another folder with --conf-dir"):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, content)
    if json_output:
        emit_json(
            {
                "file": str(file),
                "layout": found.kind,
                "found": found.found,
                "experiment": base.name,
                "command": command(verb, name),
            }
        )
        return
    folded_line(f"found   {found.found}", indent=8)
    line(f"wrote   {short(file)}: {base.name} on these data")
    if check:
        _check(name, found, verb, conf_dir)
    line(f"try it  {command(verb, name, '--smoke')}")
    line(f"run it  {command(verb, name)}")


def _new_file(name: str, conf_dir: Path | None) -> Path:
    """Return the file to write. Raises `ConfigError` for a name that no experiment can have, or that one has."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name}: is no name of an experiment; use letters, digits, - and _, such as my-cells")
    folder = expanded(conf_dir) if conf_dir is not None else _OWN_CONF
    file = folder / "experiment" / f"{name}.yaml"
    refuse_reserved(file, name)
    if file.exists() or file.is_symlink():
        raise ConfigError(f"{short(file)}: exists; choose another name, or move that file away")
    if name in options("experiment", search_path()) or name in DATASETS:
        raise ConfigError(f"{name}: is the name of an experiment or a data set of the program; choose another")
    return file


def _chosen(folder: Path, kind: str | None) -> Recognised:
    if not folder.is_dir():
        raise ConfigError(
            f"{short(folder)}: {'is a file' if folder.exists() else 'no such folder'}; name the folder of the data"
        )
    found = recognise(folder)
    if kind is not None:
        found = [item for item in found if item.kind == kind]
        if not found:
            raise ConfigError(f"--as {kind}: {short(folder)} has nothing of this layout; looked for {_LAYOUTS[kind]}")
    if not found:
        there = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())[:8]
        raise ConfigError(
            f"{short(folder)}: none of the known layouts. Looked for",
            *(f"  {layout}" for layout in _LAYOUTS.values()),
            f"There {'are' if there else 'is'}: {', '.join(there) or 'nothing'}",
        )
    whole = [item for item in found if not item.lacking]
    if len(whole) > 1:
        ways = (f"--as {item.kind}: {item.found}" for item in whole)
        raise ConfigError(f"{short(folder)}: can be read in {len(whole)} ways, choose one:", *ways)
    if not whole:
        raise ConfigError(*(f"{short(folder)}: {item.found}, but {item.lacking}" for item in found))
    return whole[0]


def _base(found: Recognised, wanted: str | None, conf_dir: Path | None) -> Experiment:
    """Return the experiment to build on. Raises `ConfigError` for one that does not read such data."""
    folders = search_path(conf_dir if conf_dir is not None and conf_dir.is_dir() else None)
    known = {item.name: item for item in list_experiments(folders)}
    if wanted is None:
        wanted = _WITH_MASKS if found.has_masks and found.data in ("coco", "yolo") else _FIRST_CHOICE[found.kind]
    if wanted not in known:
        near = nearest(wanted, known)
        raise ConfigError(
            f"--experiment {wanted}: no such experiment. {'Nearest' if near else 'There are'}: {', '.join(near or known)}"
        )
    tasks = DATASETS[found.data].tasks if found.data else ("rca-estimate",)
    if known[wanted].task not in tasks:
        able = [name for name, item in known.items() if item.task in tasks and TASKS[item.task].verb == "train"]
        raise ConfigError(
            f"--experiment {wanted}: does not read {found.found}; these do: {', '.join(able or [_FIRST_CHOICE[found.kind]])}"
        )
    return known[wanted]


def _content(name: str, found: Recognised, base: Experiment, typed: str) -> str:
    """Return the file: what the experiment says, with these data."""
    document: dict[str, Any] = {"defaults": [base.name, "_self_", *([{_DATA: found.data}] if found.data else [])]}
    for key, value in found.values.items():
        *parents, last = [*(["data"] if found.data else []), *key.split(".")]
        section = document
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    head = [
        "# @package _global_",
        f"# about:    {base.name} on your own data",
        *([_comment(f"paper:    {' '.join(base.paper.split())}", " " * 10)] if base.paper else []),
        f"# command:  {typed}",
    ]
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    said = _comment(f"`paperbench init` found {' '.join(found.found.split())}")
    return "\n".join([*head, f"{body}{said}", ""])


def _comment(text: str, indent: str = "") -> str:
    """Return a comment in YAML, in lines of the page; the `#` of those that follow the first has `indent` behind it."""
    return textwrap.fill(
        text,
        100,
        initial_indent="# ",
        subsequent_indent=f"# {indent}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _check(name: str, found: Recognised, verb: str, conf_dir: Path | None) -> None:
    """Read the data; of files that an experiment reads itself, print the plan, for which it looks at them."""
    if found.data:
        from paperbench.cli import datasets

        datasets.check(name, None, json_output=False, conf_dir=conf_dir)
    else:
        from paperbench.cli import running

        running.start(verb, name, None, RunOptions(dry_run=True, conf_dir=conf_dir))
