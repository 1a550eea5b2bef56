"""What a command says of places that cannot be used, and of streams that are closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from paperbench.cli.app import app
from paperbench.cli.guard import guarded
from tests.engine import toy
from tests.sweeps import toys

LONG = "L" * 300


@pytest.fixture(autouse=True)
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toy.register(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return toys.conf(tmp_path / "elsewhere")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("resume", LONG), ("report", LONG), ("predict", LONG, "a.png"), ("export", LONG, "--format", "safetensors"),
        ("runs", LONG), ("compare", LONG, LONG), ("eval", "vae", f"checkpoint={LONG}"), ("data", "ls", "--root", LONG),
        ("sweep", "--resume", LONG), ("train", "vae", "--conf-dir", LONG, "--dry-run"),
        ("train", "faster-rcnn", "data=voc", f"data.root={LONG}", "--dry-run"),
    ],
)  # fmt: skip
def test_a_name_that_no_file_can_have_is_refused(arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert result.exit_code in (0, 2, 4)  # 0: nothing is there to list
    assert "unexpected" not in result.stderr


def test_a_run_folder_of_too_many_letters_is_named(conf: Path) -> None:
    result = call("train", "toy", "--conf-dir", str(conf), "--run-dir", LONG)
    assert result.exit_code == 4
    assert "File name too long" in result.stderr
    assert "--run-dir" in result.stderr


def test_a_run_folder_whose_name_is_no_text_is_refused_and_not_half_made(conf: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    for arguments in (["--run-dir", name], [f"output.root='{name}'"]):
        result = call("train", "toy", "--conf-dir", str(conf), *arguments)
        assert result.exit_code == 2
        assert r"caf\xe9" in result.stderr
        assert not (tmp_path / name).exists()


def test_a_dry_run_looks_at_the_place_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    result = call("train", "vae", "--smoke", "--dry-run", "--run-dir", str(tmp_path / "mine"))
    assert result.exit_code == 2
    assert "mine is not empty (it holds thesis.tex)" in result.stderr


def test_a_current_folder_that_was_deleted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = call("train", "vae", "--smoke", "--dry-run")
    monkeypatch.chdir(tmp_path)
    assert result.exit_code == 4
    assert "the current folder cannot be used" in result.stderr


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "/x/y"), OSError(36, "File name too long", "L")]
)
def test_a_refusal_of_the_system_is_no_unexpected_error(error: OSError, capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    with pytest.raises(typer.Exit) as ended, guarded():
        raise error
    assert ended.value.exit_code == 4
    said = capsys.readouterr().err
    assert f"error: {error.filename}: {error.strerror}; " in said
    assert "unexpected" not in said


PROGRAM = [sys.executable, "-m", "paperbench"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    ran = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *PROGRAM, "ls", "papers"], capture_output=True, text=True)
    assert ran.returncode == 0
    assert ran.stderr == ""


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    for arguments in (["ls"], ["--help"], ["sweep", "--help"]):
        read, write = os.pipe()
        os.close(read)
        ran = subprocess.run([*PROGRAM, *arguments], stdout=write, stderr=subprocess.PIPE, text=True)
        os.close(write)
        assert ran.stderr == ""
        assert ran.returncode in (0, 1)


def test_names_that_are_no_text_are_printed_as_they_are() -> None:
    name = b"caf\xe9"
    ran = subprocess.run([*PROGRAM, "report", name], capture_output=True)
    assert ran.returncode == 2
    assert b"caf\xe9: no such folder" in ran.stderr or rb"caf\udce9: no such folder" in ran.stderr
