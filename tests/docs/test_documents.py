"""How commands and files are found in documents, and what is put in the place of what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.documents import Command, WrittenFile, blocks, commands, written_file
from tests.docs.workspace import Workspace, arguments_of


def found(text: str) -> list[Command]:
    return [command for block in blocks("a.md", text) for command in commands(block)]


def words(text: str) -> list[str]:
    return [command.text for command in found(text)]


def test_commands_of_a_block_without_a_mark_begin_with_a_program() -> None:
    assert words("text\n```\npaperbench ls\n\n{json}\nls -l\npip install x\n```\npaperbench not fenced\n") == [
        "paperbench ls",
        "pip install x",
    ]


def test_every_line_of_a_shell_block_is_a_command() -> None:
    assert words("```sh\npaperbench ls\n# a remark\nls -l\n```\n") == ["paperbench ls", "ls -l"]


def test_blocks_of_another_language_hold_none() -> None:
    assert words("```yaml\npaperbench: ls\n```\n```python\npaperbench ls\n```\n") == []


def test_lines_are_joined_split_and_stripped() -> None:
    text = "```\nA=1 paperbench show x \\\n   'data.classes=[a, b]'   # remark\npip install u && paperbench ls | head > f\n```\n"

    first, second, third, fourth = found(text)
    assert first.words == ("paperbench", "show", "x", "data.classes=[a, b]")
    assert first.variables == (("A", "1"),)
    assert (first.line, second.line) == (2, 4)
    assert [command.text for command in (second, third, fourth)] == ["pip install u", "paperbench ls", "head"]


def test_what_a_command_prints() -> None:
    first, second = found("```\n$ paperbench ls\none\ntwo\n$ paperbench show\nerror: x\n```\n")

    assert (first.printed, second.printed) == ("one\ntwo\n", "error: x\n")


def test_the_comment_above_a_block_belongs_to_it() -> None:
    first, second = found("<!-- run: vae -->\n\n```\npaperbench ls\n```\n\ntext\n```\npaperbench ls\n```\n")

    assert (first.note, second.note) == ("run: vae", "")


def test_indented_blocks() -> None:
    assert words("* a\n  ```sh\n  paperbench ls\n  ```\n") == ["paperbench ls"]


def test_a_block_that_never_ends() -> None:
    with pytest.raises(ValueError, match=r"a\.md:2: the fenced block is never closed"):
        found("x\n```sh\npaperbench ls\n")


def file(first_line: str, language: str = "python") -> WrittenFile | None:
    (block,) = blocks("a.md", f"```{language}\n{first_line}\nx\n```\n")
    return written_file(block)


def test_files() -> None:
    catalog = Path("src/a/catalog.py")
    assert file("# conf/mine.yaml", "yaml") == WrittenFile("a.md", 2, Path("conf/mine.yaml"), "x\n")
    assert file("# src/a/catalog.py, in TASKS") == WrittenFile("a.md", 2, catalog, "x\n", name="TASKS")
    assert file("# src/a/catalog.py, in place of a: b, c") == WrittenFile("a.md", 2, catalog, "x\n", old="a: b, c")
    assert file("# a remark about src/a.py") is None
    assert file("# a/b.sh", "sh") is None
    assert found("```\n# a/b.txt\npaperbench ls\n```\n") == []


def test_text_is_put_into_files(tmp_path: Path) -> None:
    WrittenFile("a.md", 2, Path("a.py"), "A = [\n    1,\n]\nb = 2\nB = {\n    for spec in (\n    )\n}\n").put(tmp_path)
    WrittenFile("a.md", 2, Path("a.py"), "    0,\n", name="A").put(tmp_path)
    WrittenFile("a.md", 2, Path("a.py"), "        5,\n", name="B").put(tmp_path)
    WrittenFile("a.md", 2, Path("a.py"), "b = 3\n", old="b = ").put(tmp_path)

    text = "A = [\n    0,\n    1,\n]\nb = 3\nB = {\n    for spec in (\n        5,\n    )\n}\n"
    assert (tmp_path / "a.py").read_text(encoding="utf-8") == text
    with pytest.raises(ValueError, match=r"a\.md:2: a\.py has not one place for C"):
        WrittenFile("a.md", 2, Path("a.py"), "", name="C").put(tmp_path)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("paperbench ls", ["ls"]),
        ("uv run paperbench ls", ["ls"]),
        ("python -m paperbench ls", ["ls"]),
        ("paperbench", ["--help"]),
        ("torchrun paperbench ls", []),
        ("uv run pytest", []),
    ],
)
def test_ways_to_call_the_program(text: str, arguments: list[str]) -> None:
    (command,) = found(f"```sh\n{text}\n```\n")
    assert arguments_of(command) == arguments


def test_placeholders(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    place._runs = {
        ("vae",): Path("/runs/vae"),
        ("vae", "seed=1"): Path("/runs/vae-1"),
        ("faster-rcnn",): Path("/runs/f"),
    }

    def replaced(text: str) -> list[str]:
        return next(place.words(command) for command in found(text))

    assert replaced("<!-- run: vae -->\n```\npaperbench compare RUN… OTHER\n```\n") == [
        "compare",
        "/runs/vae",
        "/runs/vae-1",
    ]
    assert replaced(
        "<!-- run: vae -->\n```\npaperbench report RUN|SWEEP [--output DIR|FILE] 'a=[b]' [--json]\n```\n"
    ) == [
        "report",
        "/runs/vae",
        "a=[b]",
    ]
    assert replaced("```\npaperbench eval vae checkpoint=RUN\n```\n") == ["eval", "vae", "checkpoint=/runs/vae"]
    assert replaced("```\npaperbench predict RUN IMAGE.jpg\n```\n") == [
        "predict",
        "/runs/f",
        str(tmp_path / "image.png"),
    ]
    assert replaced("```\npaperbench train x data.root=DIR --seed 3\n```\n")[1:] == [
        "x", f"data.root={tmp_path / 'sets'}", "--seed", "3", "--dry-run",
    ]  # fmt: skip
