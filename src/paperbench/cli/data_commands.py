"""`paperbench data`: parsing only, like `app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paperbench.cli import options as o
from paperbench.cli.guard import guarded

data_app = typer.Typer(help="List, download and check data sets.", no_args_is_help=True)

DataRoot = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="Where data sets lie; default $PAPERBENCH_DATA, else ./data."),
]


@data_app.command("ls")
def data_ls(root: DataRoot = None, json_output: o.Json = False, debug: o.Debug = False) -> None:
    """List data sets, what each needs, and whether it is there."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import datasets

        datasets.ls(root, json_output=json_output)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set.", show_default=False)],
    root: DataRoot = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Download a data set, verify and unpack it."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import datasets

        datasets.get(name, root, json_output=json_output)


@data_app.command("check")
def data_check(
    name: Annotated[
        str, typer.Argument(metavar="NAME|EXPERIMENT", help="A data set or an experiment.", show_default=False)
    ],
    overrides: o.Overrides = None,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Read annotations and images; count them, name all faults."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import datasets

        datasets.check(name, overrides, json_output=json_output, conf_dir=conf_dir)
