"""The command line. Parsing only: each command imports what it needs when it runs, so that `--help` is quick.

Neither torch, Hydra, pydantic nor numpy may be imported from here at module level; a test holds it so.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from paperbench import __version__
from paperbench.cli import options as o
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
data_app = typer.Typer(help="List, download and check data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


class Listing(StrEnum):
    """What `ls` can list."""

    experiments = "experiments"
    tasks = "tasks"
    models = "models"
    datasets = "datasets"
    papers = "papers"


class ExportFormat(StrEnum):
    """What `export` can write."""

    safetensors = "safetensors"
    onnx = "onnx"
    torchscript = "torchscript"


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


@app.command()
def sweep(
    experiment: o.SweptExperiment = None,
    overrides: o.SweptOverrides = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", metavar="N", min=1, help="Runs at a time; the cores are shared out. Local default: 1."),
    ] = None,
    launcher: Annotated[
        str, typer.Option("--launcher", metavar="local|slurm|ray", help="Where runs are started.")
    ] = "local",
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="ID", help="Continue a sweep by its id or folder.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Runs that failed are tried again.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="The first failure stops the others.")] = False,
    stacked: Annotated[
        bool, typer.Option("--stacked", help="Train runs that differ in little side by side in one process.")
    ] = False,
    seed: o.Seed = None,
    device: o.Device = None,
    smoke: o.Smoke = False,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Run every combination of several values: seed=0,1,2 'optim.lr=range(0.01,0.05,0.01)' data=voc,coco.

    What is done is not done again, so the same command continues a sweep that was stopped, killed or failed in part.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import sweeping

        given = RunOptions(
            seed=seed, device=device, smoke=smoke, dry_run=dry_run, json_output=json_output, conf_dir=conf_dir
        )
        sweeping.sweep(
            experiment,
            overrides,
            sweeping.SweepOptions(
                run=given,
                jobs=jobs,
                launcher=launcher,
                resume=resume,
                retry_failed=retry_failed,
                fail_fast=fail_fast,
                stacked=stacked,
            ),
        )


@app.command()
def reproduce(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[PAPER/TABLE]", help="A published table or figure; without one, the list.", show_default=False
        ),
    ] = None,
    overrides: o.Overrides = None,
    scale: Annotated[
        str | None,
        typer.Option(
            "--scale", metavar="smoke|short|paper", help="How long and how large; default short.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", min=1, help="Seeds 0 to N-1 instead of the table's own number."),
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help="Runs at once.")] = None,
    launcher: Annotated[
        str, typer.Option("--launcher", metavar="local|slurm|ray", help="Where runs are started.")
    ] = "local",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also do runs that failed before.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = False,
    stacked: Annotated[bool, typer.Option("--stacked", help="Train runs side by side in one process.")] = False,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Make a published table: the paper's value, yours, the verdict.

    Runs what is missing and reuses what is done. Overrides hold for every run.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import reproducing

        reproducing.reproduce(
            name,
            overrides or (),
            reproducing.Options(
                scale=scale,
                seeds=seeds,
                jobs=jobs,
                launcher=launcher,
                retry_failed=retry_failed,
                fail_fast=fail_fast,
                stacked=stacked,
                dry_run=dry_run,
                json_output=json_output,
                conf_dir=conf_dir,
            ),
        )


@app.command()
def runs(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where runs were written.")] = Path("outputs"),
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="KEY",
            help="Sort by metric (the result), updated, seconds, a key of the configuration, or a metric's name: "
            "results best first, the rest lowest first. Default: the newest first.",
        ),
    ] = None,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="The other way round; runs without the key stay last.")
    ] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="KEY=VALUE",
            help="Only runs where it holds: state=done, data=voc, 'coco/AP50>=80'; also != < <= >, and * in text. Repeatable.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """List runs, the newest first: state, result, age, folder."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import runlist

        runlist.print_runs(
            root, json_output=json_output, filters=filters or (), sort=sort, reverse=reverse, limit=limit
        )


@app.command()
def compare(
    given: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Folders of runs, the first one to compare with; the folder of a sweep stands for its runs.",
            show_default=False,
        ),
    ],
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Show what differs between runs: configuration, environment, data, metrics.

    Runs of different tasks are compared on what they share.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import comparing

        comparing.compare_runs(given, json_output=json_output)


@app.command()
def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|SWEEP|REPRODUCTION", help="Folder of a run, a sweep or a reproduction.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="DIR|FILE", help="A folder, or a file ending in .html; default FOLDER/report."
        ),
    ] = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Write a page that explains results: tables, curves, pictures, configuration.

    One HTML file that opens from disk, with Markdown and CSV beside it.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import reporting

        reporting.report(source, output=output, json_output=json_output)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Pictures to look at.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Where to draw; default RUN/figures/predictions.")
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option("--score-threshold", metavar="P", min=0, max=1, help="Draw what scores at least this."),
    ] = None,
    device: o.Device = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Draw what a trained model sees in pictures."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import pictures

        pictures.predict(
            run, images, output=output, score_threshold=score_threshold, device=device, json_output=json_output
        )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.", show_default=False)],
    kind: Annotated[
        ExportFormat,
        typer.Option("--format", help="safetensors: the weights alone; onnx, torchscript: what computes with them."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="The file; default RUN/export/model.<format>.")
    ] = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Write a trained model for other programs, compared with the run's own.

    A file that computes something else is not kept (exit code 1). What goes in and comes out stands in FILE.json.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import exporting

        exporting.export(run, kind.value, output=output, json_output=json_output)


@app.command()
def doctor(json_output: o.Json = False, debug: o.Debug = False) -> None:
    """Look at this machine: versions, devices, disk, data.

    Leaves with exit code 4 if something essential is broken.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import doctor as examination

        examination.examine(json_output=json_output)


# --- paperbench data --------------------------------------------------------------------------------------------------

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


def main() -> None:
    """Entry point of the `paperbench` command."""
    app()
