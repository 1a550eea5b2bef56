"""The command line. Parsing only: each command imports what it needs when it runs, so that `--help` is quick.

Neither torch, Hydra, pydantic nor numpy may be imported from here at module level; a test holds it so.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from paperbench import __version__
from paperbench.cli import many_commands, result_commands
from paperbench.cli import options as o
from paperbench.cli.data_commands import data_app
from paperbench.cli.guard import guarded
from paperbench.cli.options import RunOptions

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


class Listing(StrEnum):
    """What `ls` can list."""

    experiments = "experiments"
    tasks = "tasks"
    models = "models"
    datasets = "datasets"
    papers = "papers"


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
    what: Annotated[Listing, typer.Argument(help="What to list.")] = Listing.experiments,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """List experiments, tasks, models, data sets or papers."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import listing

        listing.ls(what.value, json_output=json_output, conf_dir=conf_dir)


@app.command()
def show(
    experiment: o.Experiment,
    overrides: o.Overrides = None,
    diff: Annotated[bool, typer.Option("--diff", help="Only what differs from the experiment's default.")] = False,
    run_dir: o.RunDir = None,
    seed: o.Seed = None,
    device: o.Device = None,
    nproc: o.Nproc = None,
    smoke: o.Smoke = False,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Show the complete configuration of an experiment.

    Takes the options of the other verbs, so that changing one word explains a command; nothing runs.
    """
    given = RunOptions(seed=seed, device=device, nproc=nproc, smoke=smoke, json_output=json_output, conf_dir=conf_dir)
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import listing

        listing.show(experiment, overrides, given, diff=diff)


@app.command()
def train(
    experiment: o.Experiment,
    overrides: o.Overrides = None,
    run_dir: o.RunDir = None,
    seed: o.Seed = None,
    device: o.Device = None,
    nproc: o.Nproc = None,
    smoke: o.Smoke = False,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Train, then evaluate. Stopped at any moment, `paperbench resume` continues."""
    given = RunOptions(
        run_dir=run_dir,
        seed=seed,
        device=device,
        nproc=nproc,
        smoke=smoke,
        dry_run=dry_run,
        json_output=json_output,
        conf_dir=conf_dir,
    )
    _start("train", experiment, overrides, given, debug)


@app.command("eval")
def evaluate(
    experiment: o.Experiment,
    overrides: o.Overrides = None,
    run_dir: o.RunDir = None,
    seed: o.Seed = None,
    device: o.Device = None,
    nproc: o.Nproc = None,
    smoke: o.Smoke = False,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Evaluate a trained run (checkpoint=RUN), or files alone.

    A run is evaluated with its own configuration; overrides change that.
    """
    given = RunOptions(
        run_dir=run_dir,
        seed=seed,
        device=device,
        nproc=nproc,
        smoke=smoke,
        dry_run=dry_run,
        json_output=json_output,
        conf_dir=conf_dir,
    )
    _start("eval", experiment, overrides, given, debug)


@app.command()
def estimate(
    experiment: o.Experiment,
    overrides: o.Overrides = None,
    run_dir: o.RunDir = None,
    seed: o.Seed = None,
    device: o.Device = None,
    nproc: o.Nproc = None,
    smoke: o.Smoke = False,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Estimate a quality without ground truth."""
    given = RunOptions(
        run_dir=run_dir,
        seed=seed,
        device=device,
        nproc=nproc,
        smoke=smoke,
        dry_run=dry_run,
        json_output=json_output,
        conf_dir=conf_dir,
    )
    _start("estimate", experiment, overrides, given, debug)


@app.command()
def proposals(
    experiment: o.Experiment,
    overrides: o.Overrides = None,
    run_dir: o.RunDir = None,
    seed: o.Seed = None,
    device: o.Device = None,
    nproc: o.Nproc = None,
    smoke: o.Smoke = False,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Find boxes that may hold objects and write them to files.

    Boxes that were found before are not searched again.
    """
    given = RunOptions(
        run_dir=run_dir,
        seed=seed,
        device=device,
        nproc=nproc,
        smoke=smoke,
        dry_run=dry_run,
        json_output=json_output,
        conf_dir=conf_dir,
    )
    _start("proposals", experiment, overrides, given, debug)


def _start(verb: str, experiment: str, overrides: list[str] | None, given: RunOptions, debug: bool) -> None:
    with guarded(json_output=given.json_output, debug=debug):
        from paperbench.cli import running

        running.start(verb, experiment, overrides, given)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of the run.", show_default=False)],
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Continue an unfinished run from its last checkpoint."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import running

        running.resume(run, json_output=json_output)


# Registered in the order in which the help lists them.
for command in (many_commands.sweep, many_commands.reproduce):
    app.command()(command)
for command in (
    result_commands.runs,
    result_commands.compare,
    result_commands.report,
    result_commands.predict,
    result_commands.export,
):
    app.command()(command)


@app.command()
def doctor(json_output: o.Json = False, debug: o.Debug = False) -> None:
    """Look at this machine: versions, devices, disk, data.

    Leaves with exit code 4 if something essential is broken.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import doctor as examination

        examination.examine(json_output=json_output)


app.add_typer(data_app, name="data")


def main() -> None:
    """Entry point of the `paperbench` command."""
    app()
