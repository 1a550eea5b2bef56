"""`paperbench estimate rca`: runs, stops, failures and faulty input."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.engine.signals import StopFlag
from paperbench.rca import case_files as reading
from paperbench.rca import estimation
from paperbench.records.metrics import metrics_of
from tests.rca.made import QUICK, SHAPE, estimate, folders, write_png


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("rca")
    words = (*QUICK, "data.cases=3", "data.references=3", f"output.root={root}", "calibration.degraded=5", "pictures=1")
    result, content = estimate("rca", *words, "metrics=[dsc,hd95]", directory=root / "run")
    assert result.exit_code == 0, result.output
    return root / "run", content


def test_a_run_on_phantoms_writes_tables_metrics_and_figures(phantoms: tuple[Path, dict[str, Any]]) -> None:
    run, content = phantoms
    cases = rows(run / "cases.csv")
    assert len(cases) == 3 * 5 * 2  # cases, labels, metrics
    dsc = [row for row in cases if row["metric"] == "dsc"]
    assert {row["flag"] for row in dsc} <= {"good", "poor"}
    for row in dsc:
        assert float(row["mean"]) <= float(row["max"]) <= 1
        assert 0 <= float(row["low"]) <= float(row["high"]) <= 1
        assert row["references"] == "3"
    scores = rows(run / "references.csv")
    assert len(scores) == 3 * 5 * 2 * 3
    first = {"case": dsc[0]["case"], "label": "liver", "metric": "dsc"}
    best = max(float(row["score"]) for row in scores if row.items() >= first.items())
    assert best == float(next(row["max"] for row in dsc if row.items() >= first.items()))
    assert content["precision"] == "float64 (cnn: float32)"  # registration has its own, whatever precision= says
    metrics = content["metrics"]
    assert metrics["rca/cases"] == 3
    assert metrics["rca/masks"] == 15
    assert metrics["rca/flagged"] == sum(row["flag"] == "poor" for row in dsc)
    assert (run / "figures" / "predicted_real.png").is_file()
    assert (run / "figures" / "worst-01.png").is_file()
    assert not (run / "figures" / "worst-02.png").exists()


def test_every_metric_of_a_run_is_declared(phantoms: tuple[Path, dict[str, Any]]) -> None:
    declared = metrics_of("rca-estimate")
    assert [name for name in phantoms[1]["metrics"] if name not in declared] == []
    assert "hd95/mae" in phantoms[1]["metrics"]


def test_the_scores_that_a_run_wrote_give_the_same_statistics(
    phantoms: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run, content = phantoms
    truth = {(r["case"], r["label"]): r["real"] for r in rows(run / "cases.csv") if r["metric"] == "dsc"}
    with (tmp_path / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "label", "reference", "score", "truth"])
        for row in rows(run / "references.csv"):
            if row["metric"] == "dsc":
                real = truth[row["case"], row["label"]]
                writer.writerow([row["case"], row["label"], row["reference"], row["score"], real])
    result, again = estimate("rca-scores", f"scores={tmp_path / 'scores.csv'}", directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    for name in ("rca/mae", "rca/pearson_r", "rca/accuracy@0.7", "rca/liver/mae", "rca/flagged"):
        assert again["metrics"][name] == pytest.approx(content["metrics"][name], abs=1e-5)


def test_stored_transforms_give_the_same(phantoms: tuple[Path, dict[str, Any]], monkeypatch: Any) -> None:
    run, content = phantoms
    monkeypatch.setattr("paperbench.rca.atlas.register", None)  # whoever computes one now fails
    words = (*QUICK, "data.cases=3", "data.references=3", f"output.root={run.parent}", "calibration.degraded=5")
    result, again = estimate("rca", *words, "pictures=0", directory=run.parent / "again")
    assert result.exit_code == 0, result.output
    shared = {name for name in again["metrics"] if name.startswith("rca/")}
    assert {n: again["metrics"][n] for n in shared} == {n: content["metrics"][n] for n in shared}


def test_a_stopped_run_continues_with_the_next_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*QUICK, "data.cases=3", "data.references=2", "calibration.kind=none", f"output.root={tmp_path / 'o'}"]
    scored: list[str] = []
    plain = estimation.CaseRunner._score

    def watched(self: estimation.CaseRunner, image: Any, **options: Any) -> Any:
        scored.append(image.name)
        if len(scored) == 1:
            assert isinstance(self.run.stop, StopFlag)
            self.run.stop.set("SIGINT")
        return plain(self, image, **options)

    monkeypatch.setattr(estimation.CaseRunner, "_score", watched)
    result, _ = estimate("rca", *words, directory=tmp_path / "run")
    assert result.exit_code == 3, result.output
    assert len(scored) == 1
    again = CliRunner().invoke(app, ["resume", str(tmp_path / "run"), "--json"])
    assert again.exit_code == 0, again.output
    assert len(scored) == len(set(scored)) == 3
    whole, at_once = estimate("rca", *words, "output.transforms=", directory=tmp_path / "whole")
    resumed = json.loads(again.stdout)["metrics"]
    assert whole.exit_code == 0
    assert {k: v for k, v in at_once["metrics"].items() if k != "seconds_per_image"} == {
        k: v for k, v in resumed.items() if k != "seconds_per_image"
    }
    assert (tmp_path / "run" / "references.csv").read_text() == (tmp_path / "whole" / "references.csv").read_text()


def test_folders_of_pictures_with_truth(tmp_path: Path) -> None:
    words = folders(tmp_path)
    result, content = estimate("rca", *words, f"truth={tmp_path / 'truth'}", directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert content["metrics"]["rca/cases"] == 2
    assert {row["label"] for row in rows(tmp_path / "run" / "cases.csv")} == set("12345")
    assert {row["segmenter"] for row in rows(tmp_path / "run" / "cases.csv")} == {"masks"}


def test_bit_fields_and_values_of_the_same_organs_are_scored_alike(tmp_path: Path) -> None:
    scores = []
    for kind in ("values", "bits"):
        root = tmp_path / kind
        words = folders(root, cases=1, bits=kind == "bits")
        result, _ = estimate("rca", *words, f"labels.kind={kind}", directory=root / "run")
        assert result.exit_code == 0, result.output
        scores.append(sorted(row["score"] for row in rows(root / "run" / "references.csv")))
    assert scores[0] == scores[1]
    assert len(scores[0]) == 15


def test_a_faulty_case_is_recorded_and_the_others_are_scored(tmp_path: Path) -> None:
    words = folders(tmp_path, cases=3)
    write_png(tmp_path / "masks" / "c1.png", np.zeros((12, 12)))
    (tmp_path / "images" / "c2.png").write_bytes(b"no image")
    result, content = estimate("rca", *words, directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert content["metrics"]["rca/failed_cases"] == 2
    problems = {row["case"]: row["problem"] for row in rows(tmp_path / "run" / "cases.csv") if row["problem"]}
    assert "lies elsewhere" in problems["c1"]
    assert "shape 12 x 12" in problems["c1"]
    assert "cannot be read" in problems["c2"]


def test_a_run_of_nothing_but_faulty_cases_fails(tmp_path: Path) -> None:
    words = folders(tmp_path, cases=1)
    (tmp_path / "images" / "c0.png").write_bytes(b"no image")
    result, content = estimate("rca", *words, directory=tmp_path / "run")
    assert result.exit_code == 4
    assert "none of the 1 cases could be scored" in content["error"]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (["images=nowhere"], 4, "no such folder"),
        (["reference.masks="], 2, "reference.masks is empty"),
        (["labels.values=[1,2]", "labels.names=[one]"], 2, "1 names for 2"),
        (["calibration.kind=labelled"], 2, "calibration.images is empty"),
        (["manifest=list.csv"], 2, "leave out images"),
        (["metrics=[dice]"], 2, "metrics"),
        (["classifier=atlsa"], 2, "Nearest: atlas"),
    ],
)
def test_faulty_input_is_refused_before_anything_is_written(
    tmp_path: Path, change: list[str], code: int, said: str
) -> None:
    words = [
        word
        for word in folders(tmp_path, cases=1)
        if word.partition("=")[0] not in {c.partition("=")[0] for c in change}
    ]
    result, content = estimate("rca", *words, *change, directory=tmp_path / "run")
    assert result.exit_code == code, result.output
    assert said in json.dumps(content)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "outputs").exists()


def test_labels_that_no_reference_holds_end_the_run_before_the_first_case(tmp_path: Path) -> None:
    words = folders(tmp_path, cases=1)
    result, content = estimate("rca", *words, "labels.values=[9]", directory=tmp_path / "run")
    assert result.exit_code == 4, result.output
    assert "no reference mask holds 9" in content["error"]
    assert not (tmp_path / "run" / "cases").exists()


def test_a_dry_run_opens_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*folders(tmp_path), f"truth={tmp_path / 'truth'}"]
    for module in ("case_files", "datasets"):
        for name in ("read_image", "read_labels"):
            monkeypatch.setattr(f"paperbench.rca.{module}.{name}", None)  # whoever opens one now fails
    monkeypatch.setattr("paperbench.data.phantoms.phantom", None)
    for more in (words, QUICK):
        result = CliRunner().invoke(app, ["estimate", "rca", *more, "--dry-run", "--run-dir", str(tmp_path / "run")])
        assert result.exit_code == 0, result.output
        assert "2-D" in result.output


@pytest.mark.parametrize("calibration", ["none", "references"])
def test_every_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibration: str) -> None:
    words = [*folders(tmp_path, cases=4), f"truth={tmp_path / 'truth'}", "pictures=2", "calibration.degraded=2"]
    opened: Counter[str] = Counter()
    for name in ("read_image", "read_labels"):
        plain = getattr(reading, name)

        def counted(path: Path, plain: Any = plain) -> Any:
            opened[str(path.relative_to(tmp_path))] += 1
            return plain(path)

        monkeypatch.setattr(reading, name, counted)
    words[words.index("calibration.kind=none")] = f"calibration.kind={calibration}"
    result, _ = estimate("rca", *words, directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "run" / "figures").glob("worst-*.png"))) == 2
    assert set(opened.values()) == {1}
    assert len(opened) == 2 * 3 + 3 * 4  # references with masks; cases with mask and truth


def test_masks_without_an_image_are_named(tmp_path: Path) -> None:
    words = folders(tmp_path)
    write_png(tmp_path / "masks" / "stranger.png", np.zeros(SHAPE))
    result, content = estimate("rca", *words, directory=tmp_path / "run")
    assert result.exit_code == 4
    assert "stranger" in content["error"]


def test_images_without_a_mask_are_left_out_and_counted(tmp_path: Path) -> None:
    words = folders(tmp_path)
    (tmp_path / "masks" / "c1.png").unlink()
    result, content = estimate("rca", *words, directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert content["metrics"]["rca/cases"] == 1
    assert "1 image, " in (tmp_path / "run" / "log.txt").read_text()


def test_two_segmenters_and_a_manifest_give_what_folders_give(tmp_path: Path) -> None:
    words = folders(tmp_path, cases=2)
    shutil.copytree(tmp_path / "masks", tmp_path / "second")
    write_png(tmp_path / "second" / "c0.png", np.zeros(SHAPE))
    both = [word for word in words if not word.startswith("masks=")] + [
        f"masks=[{tmp_path / 'masks'},{tmp_path / 'second'}]"
    ]
    result, _ = estimate("rca", *both, directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    lines = ["role,case,image,segmenter,mask,truth"]
    lines += [f"reference,r{k},ref-images/r{k}.png,,,ref-masks/r{k}.png" for k in range(3)]
    lines += [f"case,c{k},images/c{k}.png,{name},{name}/c{k}.png," for name in ("masks", "second") for k in range(2)]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rest = [
        word
        for word in words
        if word.partition("=")[0] not in ("images", "masks", "reference.images", "reference.masks")
    ]
    result, _ = estimate("rca", *rest, f"manifest={tmp_path / 'list.csv'}", directory=tmp_path / "listed")
    assert result.exit_code == 0, result.output
    first, second = (rows(tmp_path / name / "cases.csv") for name in ("run", "listed"))
    assert first == second
    empty = [row for row in first if row["segmenter"] == "second" and row["case"] == "c0"]
    assert [float(row["max"]) for row in empty] == [0.0] * 5


def test_all_mistakes_of_a_manifest_are_listed(tmp_path: Path) -> None:
    folders(tmp_path, cases=1)
    (tmp_path / "list.csv").write_text(
        "role,case,image,segmenter,mask,truth\ncase,c0,images/none.png,,masks/c0.png,\nboss,c0,images/c0.png,,,\n"
    )
    result, content = estimate("rca", f"manifest={tmp_path / 'list.csv'}", directory=tmp_path / "run")
    assert result.exit_code == 4
    for said in ("list.csv:2: image images/none.png", "list.csv:3: role 'boss'", "no row of role reference"):
        assert said in content["error"]


def test_the_stiffness_is_chosen_on_the_references(tmp_path: Path) -> None:
    words = [*QUICK, "data.cases=1", "data.references=3", "calibration.kind=none", "calibration.degraded=4"]
    chosen, _ = estimate(
        "rca", *words, f"output.root={tmp_path}", "registration.choose_stiffness=[0.03,1000]", directory=tmp_path / "a"
    )
    assert chosen.exit_code == 0, chosen.output
    tried = rows(tmp_path / "a" / "registration.csv")[1:]
    assert [row["stiffness"] for row in tried] == ["0.03", "1000"]
    best = min(tried, key=lambda row: float(row["mae"]))
    assert [row["accepted"] for row in tried] == ["yes" if row is best else "" for row in tried]
    assert tried[0]["mae"] != tried[1]["mae"]
    value = best["stiffness"]
    assert f"registration.stiffness={value}" in (tmp_path / "a" / "log.txt").read_text()
    estimate("rca", *words, f"output.root={tmp_path}", f"registration.stiffness={value}", directory=tmp_path / "b")
    assert (tmp_path / "a" / "references.csv").read_text() == (tmp_path / "b" / "references.csv").read_text()
