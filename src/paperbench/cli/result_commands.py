"""Commands about existing runs: `runs`, `compare`, `report`, `book`, `predict`, `export`. Parsing only, like `app`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from paperbench.cli import options as o
from paperbench.cli.guard import guarded


class ExportFormat(StrEnum):
    """The formats of `export`."""

    safetensors = "safetensors"
    onnx = "onnx"
    torchscript = "torchscript"


def runs(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", parser=o.path, help="Where runs were written.")] = Path(
        "outputs"
    ),
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
        bool, typer.Option("--reverse", help="In the opposite order; runs without the key stay last.")
    ] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="KEY=VALUE",
            help="Only runs where it holds: state=done, data=voc, 'coco/AP50>=80'; also != < <= >, and * in text. Repeatable.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most N runs.")] = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """List runs, the newest first: state, result, age, folder."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import runlist

        runlist.print_runs(
            root, json_output=json_output, filters=filters or (), sort=sort, reverse=reverse, limit=limit
        )


def sweeps(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", parser=o.path, help="Where sweeps were written.")] = Path(
        "outputs"
    ),
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """List sweeps, the latest first: the states of their runs, and their jobs on a cluster."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import sweeplist

        sweeplist.print_sweeps(root, json_output=json_output)


def compare(
    given: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            parser=o.path,
            help="Folders of runs, the first one to compare with; the folder of a sweep stands for its runs.",
            show_default=False,
        ),
    ],
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Show only what differs between runs.

    Configuration, environment, data and metrics; runs of different tasks are compared on what they share.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import comparing

        comparing.compare_runs(given, json_output=json_output)


def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|SWEEP|REPRODUCTION",
            parser=o.path,
            help="Folder of a run, a sweep or a reproduction.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR|FILE",
            parser=o.path,
            help="A folder, or a file ending in .html; default FOLDER/report.",
        ),
    ] = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Write one page with tables, curves and pictures.

    One HTML file that opens from disk, with Markdown and CSV beside it.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import reporting

        reporting.report(source, output=output, json_output=json_output)


def book(
    root: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", parser=o.path, help="Where runs were written; default outputs.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out", "--output", metavar="DIR", parser=o.path, help="Folder of the book; default FOLDER/book."
        ),
    ] = None,
    benchmarks: Annotated[
        Path | None,
        typer.Option(
            "--benchmarks",
            metavar="DIR",
            parser=o.path,
            help="Folder of CSV files to show too; default benchmarks/results where there is one.",
        ),
    ] = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Write all tables, sweeps and runs as one small site.

    Pages that open from disk and need no network: an index by paper, every table beside the paper's, every run.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import reporting

        reporting.book(root, output=output, benchmarks=benchmarks, json_output=json_output)


def predict(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", parser=o.path, help="Folder of a trained run.", show_default=False)
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", parser=o.path, help="Image files.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="DIR", parser=o.path, help="Folder of the drawings; default RUN/figures/predictions."
        ),
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option("--score-threshold", metavar="P", min=0, max=1, help="Draw detections with at least this score."),
    ] = None,
    device: o.Device = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Draw the predictions of a trained model for images."""
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import models

        models.predict(
            run, images, output=output, score_threshold=score_threshold, device=device, json_output=json_output
        )


def export(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", parser=o.path, help="Folder of a trained run.", show_default=False)
    ],
    kind: Annotated[
        ExportFormat,
        typer.Option("--format", help="safetensors: the weights; onnx, torchscript: the whole computation."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", parser=o.path, help="The file; default RUN/export/model.<format>."),
    ] = None,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Write a trained model for other programs, and check it.

    A file that computes something else is removed (exit code 1). FILE.json describes its inputs and outputs.
    """
    with guarded(json_output=json_output, debug=debug):
        from paperbench.cli import models

        models.export(run, kind.value, output=output, json_output=json_output)
