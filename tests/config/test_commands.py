"""Printed commands: what a shell and Hydra's grammar make of them is what was meant."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import paperbench
from paperbench.config import _hydra
from paperbench.config.commands import command, override
from paperbench.config.paths import expanded
from paperbench.errors import ConfigError

TEXTS = [
    "runs", "my runs", "it's here", 'say "hi"', "a=b", "a,b", "[1]", "(x)", "{x}", "$HOME", "$(x)", "`x`", "a;b", "a&b", "#a",
    "a\\", "a\\'b", "a\\\\\"", " lead", "end ", "1e5", "null", "true", "", "é", "*", "!x", "~", "~/x", "~ x", "tab\there", "-x",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_words_and_values_are_read_back_as_they_were(text: str) -> None:
    assert shlex.split(command("resume", text)) == ["paperbench", "resume", text]
    pasted = shlex.split(command("train", override("output.root", text)))[-1]
    assert _hydra.parse(pasted).value == text or (text == "" and pasted == "output.root=")


@pytest.mark.parametrize("text", TEXTS)
def test_words_on_windows_are_those_that_its_programs_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    word = command("resume", text).removeprefix("paperbench resume ")
    in_quotes = subprocess.list2cmdline([f" {text}"]).replace(" ", "", 1)  # the space has it quote every text
    assert word == in_quotes or (word == text and re.fullmatch(r"[\w.:/\\=+-]+", text, re.ASCII))
    pasted = command("train", override("output.root", text)).removeprefix("paperbench train ")
    assert "'" not in pasted or pasted.startswith('"')


def test_a_folder_with_spaces_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert (
        command("train", "vae", override("output.root", r"C:\my runs"))
        == r'paperbench train vae "output.root=C:\my runs"'
    )
    assert command("sweep", "vae", "seed=range(0,8)") == 'paperbench sweep vae "seed=range(0,8)"'
    assert command("resume", Path("runs/a-1")) == "paperbench resume runs/a-1"


@pytest.mark.parametrize(("path", "word"), [("-x", "./-x"), ("~x", "./~x"), ("a b", "a b"), ("/-x", "/-x")])
def test_a_path_is_never_an_option_nor_a_home_folder(path: str, word: str) -> None:
    assert shlex.split(command("resume", Path(path)))[-1] == word


@pytest.mark.parametrize("raw", ["/data/it's here", "'it's'", 'x"y', "f(1).pth"])
def test_the_advice_about_quotes_can_be_pasted(raw: str) -> None:
    with pytest.raises(ConfigError, match="quoted twice") as caught:
        _hydra.parse(f"data.root={raw}")
    (advised,) = shlex.split(str(caught.value).partition("quoted twice: ")[2])
    assert _hydra.parse(advised).value == (raw[1:-1] if raw[0] == raw[-1] == "'" else raw)


def test_signs_that_mean_nothing_need_no_quotes() -> None:
    assert _hydra.parse("data.root=a=b").value == "a=b"


def test_home_folders_are_those_of_a_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert expanded("~") == tmp_path
    assert expanded("~/a b") == tmp_path / "a b"
    assert expanded("a/~") == Path("a/~")
    with pytest.raises(ConfigError, match=r"no user is called no-such-user; write \./~no-such-user"):
        expanded("~no-such-user/x")
    (tmp_path / "~1.png").touch()
    assert expanded("~1.png") == Path("~1.png")


def test_nothing_prints_a_command_of_its_own_making() -> None:
    """A value in a command that is written by hand is not quoted: commands with values come from `command`."""
    by_hand = re.compile(r"paperbench [a-z]+[^`'\"]*\{(?!\}|command|quoted)")
    places = [
        f"{file.name}:{number}"
        for file in Path(paperbench.__file__).parent.rglob("*.py")
        for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if by_hand.search(text) and "__version__" not in text and "e.name" not in text and "version" not in text
    ]
    assert places == []


def test_home_folders_are_expanded_in_one_place() -> None:
    found = [
        file.name
        for file in Path(paperbench.__file__).parent.rglob("*.py")
        if re.search(r"\.expanduser\(", file.read_text(encoding="utf-8"))
    ]
    assert found == ["paths.py"]
