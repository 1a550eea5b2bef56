"""`paperbench doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paperbench.cli import doctor
from paperbench.cli.app import app
from paperbench.cli.doctor import BROKEN, NOTE, OK, Finding


def test_this_machine_is_healthy() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    report = json.loads(result.stdout)
    states = {finding["name"]: finding["state"] for finding in report["findings"]}

    assert result.exit_code == 0
    assert report["healthy"]
    assert {"python", "torch", "torchvision", "devices", "bfloat16", "threads", "outputs", "data root"} <= set(states)
    assert {states[name] for name in ("python", "torch", "torchvision", "libraries", "configurations")} == {OK}
    assert states["data root"] == states["data=voc"] == NOTE


def test_data_sets_that_are_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d/VOCdevkit/VOC2012").mkdir(parents=True)
    monkeypatch.setenv("PAPERBENCH_DATA", str(tmp_path / "d"))

    found = {finding.name: finding for finding in doctor._data()}
    assert found["data=voc"] == Finding(name="data=voc", state=OK, found="VOCdevkit/VOC2012")
    assert found["data=coco"].state == NOTE


def test_a_part_that_cannot_be_looked_at_is_broken_and_the_exit_code_4(monkeypatch: pytest.MonkeyPatch) -> None:
    def _torch() -> Iterator[Finding]:
        raise ImportError("libcudart.so is missing")
        yield

    monkeypatch.setattr(doctor, "_torch", _torch)
    monkeypatch.setattr(doctor, "_torchvision", lambda: iter(()))
    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 4
    assert "libcudart.so is missing" in result.stdout
    assert "something essential is broken" in result.stdout


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "" if name == "pycocotools" else real(name))

    (finding,) = doctor._libraries()
    assert finding.state == BROKEN
    assert "missing: pycocotools" in finding.remedy


def test_outputs_that_cannot_be_written_are_broken(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file in the way", encoding="utf-8")

    (finding,) = doctor._outputs()
    assert finding.state == BROKEN
    assert "cannot be written" in finding.remedy
