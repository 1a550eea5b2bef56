"""`docs/extending.md` from its text: its files are put into a copy of the source, its commands typed there, in their order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.documents import blocks, commands, written_file
from tests.docs.workspace import arguments_of
from tests.import_rules import RULES, Source

ROOT = Path(__file__).parents[2]
DOCUMENT = "docs/extending.md"

DRIVER = """
import json, sys
from pathlib import Path
from typer.testing import CliRunner
import paperbench
from paperbench.cli.app import app

assert Path(paperbench.__file__).is_relative_to(Path.cwd()), paperbench.__file__
for words in json.loads(sys.argv[1]):
    result = CliRunner().invoke(app, words)
    print(json.dumps({"words": words, "exit_code": result.exit_code, "output": result.output}), flush=True)
    if result.exit_code:
        break
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source with everything that the document adds."""
    folder = tmp_path_factory.mktemp("extended")
    for part in ("src", "conf"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(DOCUMENT, (ROOT / DOCUMENT).read_text(encoding="utf-8")):
        if file := written_file(block):
            file.put(folder)
    return folder


def shown() -> list[list[str]]:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    found = [command for block in blocks(DOCUMENT, text) for command in commands(block)]
    assert all(arguments_of(command) for command in found), "a command that is not paperbench's"
    return [arguments_of(command) for command in found]


@pytest.mark.slow
def test_what_the_document_shows_works(copy: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    environment.pop("PAPERBENCH_DATA", None)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(shown())],
        cwd=copy, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["words"] for answer in answers if answer["exit_code"]] == [], answers[-1]["output"]
    assert [answer["words"] for answer in answers] == shown()
    results = json.loads((copy / "outputs/curve/second/results.json").read_text(encoding="utf-8"))
    assert results["metrics"]["test/mae"] < 0.1  # as the experiment's header says
    table = json.loads((copy / "outputs/reproduce/curve/table-1/smoke/reproduction.json").read_text(encoding="utf-8"))
    assert [row["row"] for row in table["rows"]] == ["one hidden layer", "sines and cosines", "what the sines gain"]
    assert all(cell["n"] == 2 for row in table["rows"] for cell in row["cells"].values())


def test_what_the_document_adds_keeps_the_import_rules(copy: Path) -> None:
    source = Source(copy / "src/paperbench")

    assert "curve" in {source.part(file) for file in source.files}
    assert [sentence for rule in RULES for sentence in rule(source)] == []


def test_the_document_covers_what_it_says() -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## A task",
        "## A model",
        "## A data set",
        "## A table",
    ]
