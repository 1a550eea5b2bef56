"""The command line. Parsing only: each command imports what it needs when it runs, so that `--help` is quick.

Neither torch, Hydra, pydantic nor numpy may be imported from here at module level; a test holds it so.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from paperbench import __version__
from paperbench.cli import options as o
from paperbench.cli import result_commands, run_commands
from paperbench.cli.guard import guarded, open_closed_streams, silence, tolerate_any_text
from paperbench.engine.waiting import let_threads_yield

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 stopped and resumable, 4 environment (disk, device, data), "
    "130 interrupted."
)

app = typer.Typer(
    help="Run landmark deep-learning papers: one command per published table, the paper's number and yours side by side.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help drawn by rich takes twice as long as all the rest of this program's start
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"paperbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def ls(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[experiments|tasks|models|datasets|papers|NAME]",
            help="What to list, or the experiment of which to say all.",
        ),
    ] = "experiments",
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """List experiments, tasks, models, data sets or papers; or say what an experiment needs and gives."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import listing

        listing.ls(what, json_output=json_output, conf_dir=conf_dir)


class Layout(StrEnum):
    """Layouts of somebody's own data."""

    voc = "voc"
    coco = "coco"
    yolo = "yolo"
    folders = "folders"
    rca = "rca"


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the experiment to write.", show_default=False)],
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", parser=o.path, help="Folder of the data.", show_default=False)
    ] = Path(),
    layout: Annotated[
        Layout | None, typer.Option("--as", help="The layout to read the folder in, where it has several.")
    ] = None,
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", metavar="EXPERIMENT", help="What to run on the data; default by what they are."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Read all of the data, as `data check` does.")
    ] = True,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Write an experiment for your own data.

    Looks at a folder (VOC, COCO, YOLO, folders of classes, images with masks), writes conf/experiment/NAME.yaml, checks the data.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import starting

        starting.init(
            name,
            folder,
            kind=layout.value if layout else None,
            experiment=experiment,
            check=check,
            json_output=json_output,
            conf_dir=conf_dir,
        )


# Registered in the order in which the help lists them.
app.command()(run_commands.show)
for verb in run_commands.VERBS:
    app.command(verb)(run_commands.run_command(verb))
for command in (
    run_commands.resume,
    run_commands.sweep,
    run_commands.reproduce,
    result_commands.runs,
    result_commands.sweeps,
    result_commands.compare,
    result_commands.report,
    result_commands.book,
    result_commands.predict,
    result_commands.export,
):
    app.command()(command)


@app.command()
def doctor(json_output: o.Json = False, debug: o.Debug = False) -> None:
    """Check this machine: versions, devices, disk, data.

    Exit code 4 if something essential is broken.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import doctor as examination

        examination.examine(json_output=json_output)


# --- data -------------------------------------------------------------------------------------------------------------

data_app = typer.Typer(help="List, download and check data sets.", no_args_is_help=True)

DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="DIR", parser=o.path, help="Folder of the data sets; default $PAPERBENCH_DATA, else ./data."
    ),
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
    """Read annotations and images; count them, report all faults."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import datasets

        datasets.check(name, overrides, json_output=json_output, conf_dir=conf_dir)


app.add_typer(data_app, name="data")


def main() -> None:
    """Entry point of the `paperbench` command."""
    open_closed_streams()
    tolerate_any_text()
    let_threads_yield()
    try:
        app()
    except BrokenPipeError:  # of the help, and of what Typer prints
        sys.exit(silence())
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            silence()
