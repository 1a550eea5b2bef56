"""`paperbench doctor`: the capabilities of this machine, and what is broken."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from paperbench import __version__
from paperbench.catalog import DATASETS, packages
from paperbench.cli.datasets import found_under
from paperbench.cli.guard import emit_json
from paperbench.cli.output import line, table
from paperbench.config.paths import data_root, notices, shipped_conf
from paperbench.engine.processors import usable_cores
from paperbench.engine.waiting import is_passive
from paperbench.errors import EXIT_ENVIRONMENT

OK, NOTE, BROKEN = "ok", "note", "broken"
LOW_DISK = 2 * 2**30
"""Free bytes below which a run with checkpoints may not fit."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check. A `note` restricts what can be done; `broken` means that nothing will run."""

    name: str
    state: str
    found: str
    remedy: str = ""


def examine(*, json_output: bool) -> None:
    """Print all findings; exit code 4 if one of them is broken."""
    findings = list(look())
    broken = any(finding.state == BROKEN for finding in findings)
    if json_output:
        emit_json({"healthy": not broken, "findings": [asdict(finding) for finding in findings]})
    else:
        table(
            ("what", "state", "found"),
            ((f.name, f.state, "; ".join(filter(None, (f.found, f.remedy)))) for f in findings),
        )
        line("something essential is broken" if broken else "all that is essential works")
    if broken:
        raise typer.Exit(EXIT_ENVIRONMENT)


def look() -> Iterator[Finding]:
    """Yield all findings, in the order in which one would repair them."""
    for check in (_python, _conf, _packages, _torch, _torchvision, _libraries, _extras, _processor, _outputs, _data):
        yield from _run_check(check)


def _run_check(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check; a check that raises is itself a finding."""
    try:
        yield from check()
    except Exception as error:
        yield Finding(
            name=check.__name__.strip("_"),
            state=BROKEN,
            found=f"{type(error).__name__}: {error}",
            remedy="install again",
        )


def _python() -> Iterator[Finding]:
    fine = sys.version_info >= (3, 11)
    yield Finding(
        name="python",
        state=OK if fine else BROKEN,
        found=f"{platform.python_version()} on {platform.platform()}",
        remedy="" if fine else "3.11 or newer is needed",
    )
    yield Finding(name="paperbench", state=OK, found=f"{__version__} in {Path(__file__).resolve().parents[1]}")


def _conf() -> Iterator[Finding]:
    folder = shipped_conf()
    fine = (folder / "config.yaml").is_file() and any((folder / "experiment").glob("*.yaml"))
    yield Finding(
        name="configurations", state=OK if fine else BROKEN, found=str(folder), remedy="" if fine else "install again"
    )


def _packages() -> Iterator[Finding]:
    for item in packages():
        if not item.own:
            yield Finding(name=f"package {item.package.name}", state=OK, found=item.source)
    for text in notices():
        yield Finding(name="packages", state=BROKEN, found=text, remedy="correct it, or uninstall it")


def _torch() -> Iterator[Finding]:
    import torch

    from paperbench.engine.device import has_bfloat16

    total = float((torch.ones(64, 64) @ torch.ones(64, 64)).sum())
    works = total == 64.0**3
    yield Finding(
        name="torch", state=OK if works else BROKEN, found=torch.__version__, remedy="" if works else "wrong sums"
    )
    names = ["cpu"]
    names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    names += ["mps"] if torch.backends.mps.is_available() else []
    yield Finding(name="devices", state=OK, found=", ".join(names))
    chosen = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    fast = has_bfloat16(torch.device(chosen))
    yield Finding(
        name="bfloat16",
        state=OK if fast else NOTE,
        found=f"in hardware on {chosen}" if fast else f"not in hardware on {chosen}",
        remedy="" if fast else "precision=auto means float32 here",
    )
    threads = torch.get_num_threads()
    yield Finding(
        name="threads",
        state=OK,
        found=f"torch uses {threads} of {os.cpu_count()} logical processors"
        + ("; other processes are using them, so waiting threads sleep" if is_passive() else ""),
    )


def _torchvision() -> Iterator[Finding]:
    import torch
    import torchvision
    from torchvision.ops import nms

    kept = nms(torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]]), torch.tensor([0.9, 0.8]), 0.5).tolist()
    works = kept == [0]
    yield Finding(
        name="torchvision",
        state=OK if works else BROKEN,
        found=torchvision.__version__,
        remedy="" if works else "its operators do not work: install torch and torchvision of matching versions",
    )


def _libraries() -> Iterator[Finding]:
    names = ("hydra-core", "omegaconf", "pydantic", "pycocotools", "numpy", "pillow", "matplotlib")
    missing = [name for name in names if not _version(name)]
    found = ", ".join(f"{name} {_version(name)}" for name in names if name not in missing)
    yield Finding(
        name="libraries",
        state=BROKEN if missing else OK,
        found=found,
        remedy=f"missing: {', '.join(missing)}; install again" if missing else "",
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _extras() -> Iterator[Finding]:
    found = importlib.util.find_spec("tensorboard") is not None
    yield Finding(
        name="tensorboard",
        state=OK if found else NOTE,
        found=_version("tensorboard") if found else "not installed",
        remedy="" if found else "optional: pip install 'paperbench[tensorboard]'",
    )


def _processor() -> Iterator[Finding]:
    yield Finding(
        name="processor", state=OK, found=f"{usable_cores()} of {os.cpu_count()} logical processors usable here"
    )
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return
    yield Finding(name="memory", state=OK, found=_size(memory))


def _outputs() -> Iterator[Finding]:
    folder = Path("outputs").absolute()
    standing = next(place for place in (folder, *folder.parents) if place.exists())
    writable = standing.is_dir() and os.access(standing, os.W_OK | os.X_OK)
    free = shutil.disk_usage(standing).free
    remedy = "" if free >= LOW_DISK else "little room for checkpoints"
    if not writable:
        remedy = f"{standing} cannot be written: go to another folder or give --run-dir"
    yield Finding(
        name="outputs",
        state=BROKEN if not writable else OK if free >= LOW_DISK else NOTE,
        found=f"{folder}, {_size(free)} free",
        remedy=remedy,
    )


def _data() -> Iterator[Finding]:
    root = data_root()
    yield Finding(
        name="data root",
        state=OK if root.is_dir() else NOTE,
        found=str(root),
        remedy="" if root.is_dir() else "not there; set PAPERBENCH_DATA or data.root for data of your own",
    )
    for spec in DATASETS.values():
        if spec.layout:
            found = ", ".join(path.relative_to(root).as_posix() for path in found_under(spec, root))
            yield Finding(name=f"data={spec.name}", state=OK if found else NOTE, found=found or "not found")
        else:
            yield Finding(name=f"data={spec.name}", state=OK, found="generated")


def _size(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
