"""Commands that start runs: `show`, `train`, `eval`, `estimate`, `proposals`, `resume`, `sweep`, `reproduce`.

Parsing only, like `app`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from paperbench.cli import options as o
from paperbench.cli.guard import guarded
from paperbench.cli.options import RunOptions

VERBS: dict[str, str] = {
    "train": "Train, then evaluate. Stopped at any moment, `paperbench resume` continues.",
    "eval": """Evaluate a trained run (checkpoint=RUN), or files alone.

    A run is evaluated with its own configuration; overrides change that.""",
    "estimate": "Estimate a quality without ground truth.",
    "proposals": """Find boxes that may hold objects and write them to files.

    Boxes that were found before are not searched again.""",
}
"""The verbs that run an experiment, with their help, in the order in which the help lists them."""


def run_command(verb: str) -> Callable[..., None]:
    """Return the command of `verb`: all verbs take the same options."""

    def command(
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
        with guarded(json_output=json_output, debug=debug):
            from paperbench.cli import running

            running.start(verb, experiment, overrides, given)

    command.__doc__ = VERBS[verb]
    return command


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

    Takes the options of the other verbs: change one word of a command to see what it would run.
    """
    given = RunOptions(seed=seed, device=device, nproc=nproc, smoke=smoke, json_output=json_output, conf_dir=conf_dir)
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import listing

        listing.show(experiment, overrides, given, diff=diff)


def resume(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", parser=o.path, help="Folder of the run.", show_default=False)
    ],
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin again at step 0 where the checkpoints are gone.")
    ] = False,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Continue an unfinished run from its last checkpoint."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import running

        running.resume(run, from_start=from_start, json_output=json_output)


def sweep(
    experiment: o.SweptExperiment = None,
    overrides: o.SweptOverrides = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", metavar="N", min=1, help="Runs at a time; the cores are shared out. Local default: 1."),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option(
            "--launcher",
            metavar="local|slurm|ray",
            help="Where runs are started; default local, or as the sweep that is continued.",
        ),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="ID", help="Continue a sweep by its id or folder.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = False,
    stacked: Annotated[bool, typer.Option("--stacked", help="Train similar runs stacked, in one process.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Submit the jobs to Slurm and leave; see `paperbench sweeps`.")
    ] = False,
    cancel: Annotated[
        str | None,
        typer.Option(
            "--cancel", metavar="ID", help="Withdraw the waiting jobs of a sweep; its running ones save and end."
        ),
    ] = None,
    seed: o.Seed = None,
    device: o.Device = None,
    smoke: o.Smoke = False,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Run every combination of several values.

    As in: seed=0,1,2 'optim.lr=range(0.01,0.05,0.01)' data=voc,coco.

    Finished runs are reused, so the same command continues a sweep that was stopped, killed or failed in part.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import sweeping

        if cancel is not None:
            sweeping.cancel(
                cancel, overrides=[*([experiment] if experiment else []), *(overrides or [])], json_output=json_output
            )
            return
        given = RunOptions(
            seed=seed, device=device, smoke=smoke, dry_run=dry_run, json_output=json_output, conf_dir=conf_dir
        )
        options = sweeping.Options(
            run=given,
            jobs=jobs,
            launcher=launcher,
            resume=resume,
            retry_failed=retry_failed,
            fail_fast=fail_fast,
            stacked=stacked,
            detach=detach,
        )
        words = [*([experiment] if experiment else []), *(overrides or [])]
        with sweeping.process_for(launcher, resume, words, dry_run=dry_run):
            sweeping.sweep(experiment, overrides, options)


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
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", metavar="ROW", help="Make this row only; may be repeated.", show_default=False),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="COLUMN",
            help="Make this column only, of a curve no more than up to it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            metavar="DIR",
            parser=o.path,
            help="Write the table and the metrics of its runs to DIR/PAPER/TABLE.",
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help="Runs at once.")] = None,
    launcher: Annotated[
        str, typer.Option("--launcher", metavar="local|slurm|ray", help="Where runs are started.")
    ] = "local",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = False,
    stacked: Annotated[bool, typer.Option("--stacked", help="Train runs stacked, in one process.")] = False,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    conf_dir: o.ConfDir = None,
    debug: o.Debug = False,
) -> None:
    """Make a published table: the paper's value, yours, the verdict.

    Runs what is missing and reuses what is done. Overrides hold for every run.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import reproducing, sweeping

        options = reproducing.Options(
            scale=scale,
            seeds=seeds,
            rows=tuple(rows or ()),
            columns=tuple(columns or ()),
            export=export,
            jobs=jobs,
            launcher=launcher,
            retry_failed=retry_failed,
            fail_fast=fail_fast,
            stacked=stacked,
            dry_run=dry_run,
            json_output=json_output,
            conf_dir=conf_dir,
        )
        with sweeping.process_for(launcher, None, (), dry_run=dry_run):
            reproducing.reproduce(name, overrides or (), options)
