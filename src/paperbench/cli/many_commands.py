"""Commands that start many runs, `sweep` and `reproduce`: parsing only, like `app`."""

from __future__ import annotations

from typing import Annotated

import typer

from paperbench.cli import options as o
from paperbench.cli.guard import guarded
from paperbench.cli.options import RunOptions


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
    """Run every combination of several values.

    As in: seed=0,1,2 'optim.lr=range(0.01,0.05,0.01)' data=voc,coco.

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
