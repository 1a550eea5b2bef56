"""The options that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


def path(text: str) -> Path:
    """Return the path that an argument names; a leading `~` that the shell left alone is the home folder."""
    from paperbench.config.paths import expanded

    return expanded(text)


Experiment = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="Name of an experiment (see `paperbench ls`).", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OVERRIDE",
        help="KEY=VALUE or GROUP=NAME, such as optim.lr=0.01 or data=voc; before or after options.",
        show_default=False,
    ),
]
SweptExperiment = Annotated[
    str | None,
    typer.Argument(metavar="EXPERIMENT", help="Name of an experiment (see `paperbench ls`).", show_default=False),
]
SweptOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OVERRIDE",
        help="KEY=VALUE for every run; KEY=A,B, 'KEY=range(0,3)', GROUP=A,B or 'GROUP=glob(*)' for one of each; "
        "launcher.KEY=VALUE.",
        show_default=False,
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option("--run-dir", metavar="D", parser=path, help="Folder of this run; default outputs/EXPERIMENT/TIME."),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="The same as seed=N.")]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="auto|cpu|cuda|mps", help="The same as device=NAME."),
]
Nproc = Annotated[
    int | None,
    typer.Option("--nproc", metavar="N", help="Processes on this machine; the same as nproc=N."),
]
Smoke = Annotated[
    bool,
    typer.Option("--smoke", help="The same as scale=smoke: seconds, to see whether all works."),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Check everything, say what would run, write nothing."),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="One JSON document on stdout, all else on stderr. An error is a document too: error, mistakes, exit_code.",
    ),
]
ConfDir = Annotated[
    Path | None,
    typer.Option(
        "--conf-dir",
        metavar="DIR",
        parser=path,
        help="Your own configurations, before the shipped ones; default ./conf if it holds any.",
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of one run."""

    run_dir: Path | None = None
    seed: int | None = None
    device: str | None = None
    nproc: int | None = None
    smoke: bool = False
    dry_run: bool = False
    json_output: bool = False
    conf_dir: Path | None = None

    def overrides(self, given: list[str] | None) -> list[str]:
        """Return the overrides with those that the options stand for; `compose` finds a contradiction between them."""
        own = [f"{key}={value}" for key in ("seed", "device", "nproc") if (value := getattr(self, key)) is not None]
        return [*(given or ()), *own, *(["scale=smoke"] if self.smoke else [])]
