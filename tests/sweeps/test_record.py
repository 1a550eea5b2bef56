"""What is written about a sweep is enough to go on with it, and damage is told plainly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paperbench.errors import ConfigError, DataError
from paperbench.sweeps import record
from paperbench.sweeps.plan import Sweep
from tests.engine import toy
from tests.sweeps import toys


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    toy.register(monkeypatch)


def written(root: Path, count: int = 2) -> Sweep:
    sweep = toys.sweep(root, count)
    sweep.directory.mkdir(parents=True)
    record.write(sweep)
    return sweep


def test_a_sweep_is_read_as_it_was_written(tmp_path: Path) -> None:
    sweep = written(tmp_path)
    content = json.loads((sweep.directory / "sweep.json").read_text())
    assert (content["schema_version"], content["kind"], content["experiment"]) == (1, "sweep", "toy")
    first = sweep.members[0]
    assert content["runs"][0] == {
        "directory": f"../../{first.hash}",
        "hash": first.hash,
        "experiment": "toy",
        "overrides": [],
        "labels": {"seed": "0"},
    }
    read = record.load(sweep.directory)
    assert (read.name, read.id, read.kind, read.directory) == (sweep.name, sweep.id, "sweep", sweep.directory)
    assert [member.hash for member in read.members] == [member.hash for member in sweep.members]
    assert [member.directory for member in read.members] == [member.directory for member in sweep.members]
    assert read.members[1].composed.config == sweep.members[1].composed.config


def test_writing_clears_what_a_killed_writer_left(tmp_path: Path) -> None:
    sweep = written(tmp_path)
    (sweep.directory / ".sweep.json.99.tmp").write_text("{")
    record.write(sweep)
    assert not list(sweep.directory.glob(".*"))


def test_a_record_of_another_version(tmp_path: Path) -> None:
    sweep = written(tmp_path)
    configs = json.loads((sweep.directory / "configs.json").read_text())
    configs[sweep.members[0].hash]["width"] = 5
    (sweep.directory / "configs.json").write_text(json.dumps(configs))
    with pytest.raises(ConfigError, match="made by another version of the program"):
        record.load(sweep.directory)
    configs[sweep.members[0].hash]["old_key"] = 5
    (sweep.directory / "configs.json").write_text(json.dumps(configs))
    with pytest.raises(ConfigError, match="old_key: no such key"):
        record.load(sweep.directory)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"runs": [{}], "name": "x"}'])
def test_a_damaged_record(tmp_path: Path, content: str) -> None:
    sweep = written(tmp_path)
    (sweep.directory / "sweep.json").write_text(content)
    with pytest.raises(DataError, match=r"sweep\.json: .*give the command that wrote it again"):
        record.load(sweep.directory)


def test_a_sweep_is_found_by_folder_id_or_the_beginning_of_it(tmp_path: Path) -> None:
    first, second = written(tmp_path, 1), written(tmp_path, 2)
    assert record.find(str(first.directory), Path("nowhere")) == first.directory
    assert record.find(first.id, tmp_path) == first.directory
    assert record.find(second.id[:6], tmp_path) == second.directory
    with pytest.raises(ConfigError, match=f"could be {', '.join(sorted([first.id, second.id]))}; give more of the id"):
        record.find("", tmp_path)
    with pytest.raises(ConfigError, match=f"no such folder, and no sweep of that id below .*There: .*{first.id}"):
        record.find("zzzz", tmp_path)
    with pytest.raises(ConfigError, match=r"no such folder, and no sweep of that id below nowhere\.$"):
        record.find("zzzz", Path("nowhere"))


def test_events_survive_a_killed_writer(tmp_path: Path) -> None:
    events = record.Events(tmp_path)
    events.write("started", run="a")
    events.close()
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "ended", "ru')
    events = record.Events(tmp_path)
    events.write("started", run="b")
    events.close()
    assert [event["run"] for event in record.events(tmp_path)] == ["a", "b"]
    assert record.events(tmp_path / "nowhere") == []
