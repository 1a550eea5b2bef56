"""`docs/extending.md` from its text: its files are built into a package and installed, its commands typed beside it, in order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import paperbench
from paperbench import catalog
from tests.docs.documents import blocks, commands, written_file
from tests.docs.workspace import arguments_of

ROOT = Path(__file__).parents[2]
DOCUMENT = "docs/extending.md"

DRIVER = """
import json, sys
from pathlib import Path
from typer.testing import CliRunner
import paperbench
from paperbench.cli.app import app

assert not Path(paperbench.__file__).is_relative_to(Path.cwd()), paperbench.__file__
for words in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, words)
    print(json.dumps({"words": words, "exit_code": result.exit_code, "output": result.output}), flush=True)
    if result.exit_code:
        break
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the package, with every file of the document."""
    folder = tmp_path_factory.mktemp("curve")
    for block in blocks(DOCUMENT, (ROOT / DOCUMENT).read_text(encoding="utf-8")):
        if file := written_file(block):
            file.put(folder)
    return folder


@pytest.fixture(scope="module")
def installed(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the wheel that was built of it; no network, no isolation."""
    folder = tmp_path_factory.mktemp("site")
    code = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=written, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("paperbench_curve-1.0-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()
    return folder


def shown() -> list[list[str]]:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    found = [command for block in blocks(DOCUMENT, text) for command in commands(block)]
    assert all(arguments_of(command) for command in found), "a command that is not paperbench's"
    return [arguments_of(command) for command in found]


@pytest.mark.slow
def test_what_the_document_shows_works(installed: Path, written: Path, tmp_path: Path) -> None:
    here = Path(paperbench.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{here}", "OMP_NUM_THREADS": "1"}
    shutil.copytree(written / "measured", tmp_path / "measured")
    environment.pop("PAPERBENCH_DATA", None)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(shown())],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["words"] for answer in answers if answer["exit_code"]] == [], answers[-1]["output"]
    assert [answer["words"] for answer in answers] == shown()
    listed = next(answer["output"] for answer in answers if answer["words"] == ["ls", "tasks"])
    assert "curve-train" in listed
    results = json.loads((tmp_path / "outputs/curve/second/results.json").read_text(encoding="utf-8"))
    assert results["metrics"]["test/mae"] < 0.1  # as the experiment's header says
    table = json.loads(
        (tmp_path / "outputs/reproduce/curve/table-1/smoke/reproduction.json").read_text(encoding="utf-8")
    )
    assert [row["row"] for row in table["rows"]] == ["one hidden layer", "sines and cosines", "what the sines gain"]
    assert all(cell["n"] == 2 for row in table["rows"] for cell in row["cells"].values())


def test_nothing_of_the_package_lies_in_the_program(written: Path) -> None:
    made = {"build", "paperbench_curve.egg-info"}  # by the build
    assert {path.name for path in written.iterdir()} - made == {"curve", "measured", "pyproject.toml"}
    assert "curve" not in {item.package.name for item in catalog.packages()}


def test_its_catalogue_and_metrics_load_no_torch(installed: Path) -> None:
    code = "import sys, curve.catalog, curve.metrics; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert not {"torch", "pydantic"} & set(done.stdout.split())


def test_the_document_covers_what_it_says() -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## The package",
        "## A task",
        "## A model",
        "## A data set",
        "## A table",
    ]
