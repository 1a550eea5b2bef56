"""Every command that a document shows in a fenced block is run here, or is listed with the reason why not."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.docs.documents import Command, blocks, commands, written_file
from tests.docs.exceptions import NOT_RUN
from tests.docs.workspace import Workspace, arguments_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"docs/extending.md": "tests/docs/test_extending.py runs it as a whole, in a copy of the source"}


def documents() -> dict[str, str]:
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {name: path.read_text(encoding="utf-8") for name, path in names.items() if name not in ELSEWHERE}


BLOCKS = [block for name, text in documents().items() for block in blocks(name, text)]
SHOWN = [command for block in BLOCKS for command in commands(block)]
FILES = [file for block in BLOCKS if (file := written_file(block))]


def reason_not_run(command: Command) -> str | None:
    return next((reason for pattern, reason in NOT_RUN.items() if fnmatchcase(command.text, pattern)), None)


RUN = [command for command in SHOWN if reason_not_run(command) is None]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    place = Workspace(tmp_path_factory.mktemp("documents"))
    for file in FILES:
        file.put(place.folder_of(file.document))
    return place


@pytest.mark.parametrize("command", RUN, ids=str)
def test_the_command_works(command: Command, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{command}: {command.text}"
    assert arguments_of(command), f"{where}\nis no command of paperbench, and tests/docs/exceptions.py does not list it"

    result = workspace.run(command, monkeypatch)
    if command.printed.startswith("error:"):
        assert result.exit_code != 0, f"{where}\ndoes not fail"
        assert result.stderr.strip() == command.printed.strip()
    else:
        assert result.exit_code == 0, f"{where}\n{result.output}"


def test_there_are_commands_and_no_stale_exceptions() -> None:
    assert Counter(command.document for command in SHOWN)["README.md"] > 5
    used = {pattern for pattern in NOT_RUN for command in SHOWN if fnmatchcase(command.text, pattern)}
    assert set(NOT_RUN) == used
    assert all(NOT_RUN.values())
