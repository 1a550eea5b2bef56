"""`paperbench report` as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from tests.report.html import made


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made.run(tmp_path / "run", steps=5, pictures=[("samples.png", 9)])


def test_it_says_what_it_wrote(run: Path) -> None:
    result = call(str(run))

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("run toy: done\n  page    run/report/report.html (")
    assert "  table   run/report/report-metrics.csv\n" in result.stdout
    assert (run / "report/report.html").is_file()


def test_units_and_order_are_those_of_a_runs_end(tmp_path: Path) -> None:
    made.run(tmp_path / "run", values={"some/number": 1.0, "test/bound": -98.765})
    call("run")

    page = (tmp_path / "run/report/report.html").read_text()
    assert '<data value="-98.765">\u221298.77</data> <span>nats</span>' in page


def test_as_json(run: Path, tmp_path: Path) -> None:
    result = call(str(run), "--output", "out/mine.html", "--json")
    document = json.loads(result.stdout)

    assert (document["kind"], document["name"], document["left_out"]) == ("run", "toy", [])
    assert document["report"] == "out/mine.html"
    assert document["bytes"] == (tmp_path / "out/mine.html").stat().st_size
    assert [Path(path).name for path in document["tables"]] == [
        "mine-metrics.csv",
        "mine-classes.csv",
        "mine-checkpoints.csv",
    ]


@pytest.mark.parametrize("source", ["nothing", "."])
def test_what_is_no_subject_is_wrong_usage(tmp_path: Path, source: str) -> None:
    result = call(source)

    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "paperbench runs" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_about_the_environment(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{")
    result = call(".", "--json")

    assert result.exit_code == 4
    assert json.loads(result.stdout)["exit_code"] == 4


def test_a_failed_run_is_reported_with_success(tmp_path: Path) -> None:
    made.run(tmp_path / "run", state="failed", message="it broke")

    assert call("run").stdout.startswith("run toy: failed\n")


@pytest.mark.parametrize("arguments", [("run",), ("--help",)])
def test_it_needs_no_torch(run: Path, arguments: tuple[str, ...]) -> None:
    code = (
        "import sys\nsys.argv = ['paperbench', 'report', *sys.argv[1:]]\nfrom paperbench.cli.app import main\n"
        "try:\n    main()\nfinally:\n    print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.split())
    assert not {"torch", "torchvision", "hydra", "omegaconf", "matplotlib"} & loaded
    assert ({"jinja2", "PIL", "numpy"} & loaded == set()) == (arguments == ("--help",))
