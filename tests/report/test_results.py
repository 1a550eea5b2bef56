"""Tables that are exported, read again and shown where their runs are not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paperbench.config import paths
from paperbench.config.paths import shipped_results
from paperbench.errors import ConfigError, DataError
from paperbench.records.record import read_run
from paperbench.report import reproductions, results
from paperbench.report.layout import load
from paperbench.report.preparing import Prepared, prepare
from paperbench.report.reproduction import assemble
from paperbench.report.results import export, made_in_words, read, read_all
from tests.report.made_runs import finish, results_of

TABLE = "faster-rcnn/table-9"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PAPERBENCH_DATA", raising=False)


def environment(**changes: Any) -> str:
    return json.dumps(
        {
            "started": "2001-02-03T04:05:06+00:00", "packages": {"torch": "2.11.0"}, "cpu": "Z80", "cores": 2, "threads": 1,
            "host": "secret", "git": {"commit": COMMIT, "diff": ""}, **changes,
        }
    )  # fmt: skip


def made(count: int, folder: str = "here", **changes: Any) -> tuple[Prepared, dict[str, Any]]:
    """A table of which the first `count` rows were measured in `folder`."""
    prepared = prepare(load(TABLE), "smoke", overrides=[f"output.root={folder}"])
    for number, item in enumerate(prepared.cells[:count]):
        (member,) = item.runs.values()
        finish(member, {"voc07/mAP": 60.0 + number})
        (member.directory / "env.json").write_text(environment(**changes))
    return prepared, assemble(prepared, results_of(prepared))


def test_an_exported_table_says_who_made_it_and_holds_its_metrics() -> None:
    prepared, document = made(2)
    document["notes"] = [*document.get("notes", []), f"`paperbench resume {Path.cwd()}/here/x` continues"]
    target = export(prepared, document, Path("results"))
    assert target is not None
    assert target == Path("results/faster-rcnn/table-9/smoke")
    (kept,) = read_all(Path("results"))
    assert (kept.key, kept.name, kept.numbers) == ("faster-rcnn/table-9/smoke", TABLE, 2)
    today = kept.made["last_day"]
    assert kept.made == {
        "commits": [COMMIT], "local_changes": False, "machines": ["Z80, 2 cores"], "first_day": "2001-02-03", "last_day": today,
        "runs": 2, "unfinished": 0, "seconds": kept.made["seconds"],
    }  # fmt: skip
    assert made_in_words({**kept.made, "seconds": 7200}) == (
        f"commit 0123456 on Z80, 2 cores; 2001-02-03 to {today}; 2 runs, 2.0 hours"
    )
    run = kept.runs[kept.document["rows"][0]["cells"]["mAP"]["values"][0]["run"]]
    assert run["metrics"] == {"voc07/mAP": 60.0}
    assert "seed=0" in run["overrides"]
    text = (target / "runs.json").read_text() + (target / "reproduction.json").read_text()
    assert "secret" not in text
    assert str(Path.cwd()) not in text


def test_local_changes_and_several_commits_are_said() -> None:
    prepared, document = made(2, git={"commit": COMMIT, "diff": "+ x"})
    target = export(prepared, document, Path("results"))
    assert target is not None
    assert "commit 0123456 with local changes on Z80" in made_in_words(read(target, Path("results")).made)


def test_a_table_without_a_number_is_not_exported() -> None:
    prepared, document = made(0)
    assert export(prepared, document, Path("results")) is None
    assert not Path("results").exists()


def test_numbers_whose_runs_are_not_here_are_not_overwritten() -> None:
    export(*made(3), Path("results"))
    fewer = made(1, "there")
    with pytest.raises(
        ConfigError, match=r"has 2 values whose runs are not here \(lambda 1, mAP, seed 0; lambda 10, mAP"
    ):
        export(*fewer, Path("results"))
    assert read_all(Path("results"))[0].numbers == 3
    export(*made(4, "elsewhere"), Path("results"))
    assert read_all(Path("results"))[0].numbers == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d, r: d["rows"][0]["cells"]["mAP"].update(mean=61.0),
            "lambda 0.1, mAP: the mean 61.0 is not that of its values",
        ),
        (lambda d, r: d["rows"][0]["cells"]["mAP"].update(verdict="good"), "lambda 0.1, mAP: 'good' is no verdict"),
        (lambda d, r: r["runs"][0]["metrics"].clear(), "was not measured by faster-rcnn/"),
        (lambda d, r: r["runs"].pop(), "runs.json has no run faster-rcnn/"),
        (lambda d, r: d.pop("made"), "made: commits, machines, first_day, seconds, runs missing"),
        (lambda d, r: d.pop("rows"), "rows: Field required"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: Any, message: str) -> None:
    target = export(*made(2), Path("results"))
    assert target is not None
    document, runs = (json.loads((target / name).read_text()) for name in ("reproduction.json", "runs.json"))
    change(document, runs)
    (target / "reproduction.json").write_text(json.dumps(document))
    (target / "runs.json").write_text(json.dumps(runs))
    with pytest.raises(DataError) as caught:
        read_all(Path("results"))
    assert message in str(caught.value)


def test_the_list_says_what_was_made_elsewhere_until_it_is_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    export(*made(3, "there"), Path("results"))
    monkeypatch.setattr(reproductions, "shipped_results", lambda: Path("results"))
    found, _ = reproductions.listed(Path("outputs"))
    ((at, *others),) = [item.scales for item in found if item.name == TABLE]
    assert at.elsewhere is not None
    assert (at.done, at.elsewhere.numbers) == (0, 3)
    assert at.elsewhere.made.startswith("commit 0123456 on Z80, 2 cores; 2001-02-03")
    assert all(other.elsewhere is None for other in others)


def test_a_kept_table_is_shown_while_it_has_numbers_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    export(*made(3, "there"), Path("results"))
    monkeypatch.setattr(results, "shipped_results", lambda: Path("results"))
    here, document = made(1)
    kept = results.elsewhere(here, document)
    assert kept is not None
    assert kept.numbers == 3
    assert results.elsewhere(here, None) is not None
    assert results.elsewhere(*made(3, "whole")) is None


def test_kept_tables_travel_with_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a checkout beside `src/`, in an installation inside the package."""
    assert shipped_results() == Path(paths.__file__).parents[3] / "results"
    package = tmp_path / "site-packages/paperbench"
    (package / "results").mkdir(parents=True)
    monkeypatch.setattr(paths, "__file__", str(package / "config/paths.py"))
    assert shipped_results() == package / "results"


def test_what_is_kept_in_the_repository_fits_together() -> None:
    for kept in read_all(shipped_results()):
        assert kept.made["commits"], kept.key
        assert not kept.made["local_changes"], kept.key


def test_points_of_a_curve_are_counted_in_samples(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    lines = [{"step": 40, "test/bound": -130.5}, {"step": 60, "train/loss": 2.0}, {"step": 80, "test/bound": -120.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    composed = SimpleNamespace(resolved={"train": {"batch_size": 100}})
    member = SimpleNamespace(composed=composed, directory=run, request=SimpleNamespace(overrides=()))
    kept = results._run("one", member, read_run(run), ["test/bound"])  # pyright: ignore[reportArgumentType]
    assert kept["curve"] == [
        {"step": 40, "samples": 4000, "test/bound": -130.5},
        {"step": 80, "samples": 8000, "test/bound": -120.0},
    ]
