"""Registration settings are chosen on the references: what suits the images, from their content alone, once, and said."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from paperbench.cli.app import app
from paperbench.engine.signals import StopFlag
from paperbench.rca import settings_choice
from paperbench.rca.cases import Image
from paperbench.rca.config import ReferenceConfig, RegistrationConfig
from paperbench.rca.labels import Labels
from paperbench.rca.settings_choice import LeftOutSet, choose_in_memory
from tests.rca.made import QUICK, estimate, make_image

ONLY_CONTRAST = RegistrationConfig(window=0.0, focus=0.05, resolution=1.0, stiffness=0.03)
SMALL = [word for word in QUICK if word != "registration.choose=false"]
ONE_KEY = ["registration.window=2", "registration.focus=0", "registration.stiffness=0.03"]
"""With own levels, the contrast alone is left to choose."""
WORDS = [
    *SMALL,
    *ONE_KEY,
    "data.cases=2",
    "data.references=3",
    "calibration.kind=none",
    "calibration.degraded=3",
    "pictures=0",
]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "registration.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cell(number: int, side: int = 48) -> Image:
    """A cell of any size and place, with a nucleus, on an even background with noise, as under a microscope."""
    rng = np.random.default_rng([11, number])
    place = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij")).astype(float)
    centre, radius = side / 2 + rng.uniform(-7, 7, 2), side * rng.uniform(0.2, 0.32)
    bent = 1 + 0.15 * np.sin(2 * np.arctan2(*(place - centre[:, None, None])) + rng.uniform(0, 6))
    whole = np.hypot(*(place - centre[:, None, None])) < radius * bent
    nucleus = np.hypot(*(place - (centre + rng.uniform(-0.2, 0.2, 2) * radius)[:, None, None])) < 0.55 * radius * bent
    truth = whole.astype(np.int64) + (whole & nucleus)
    image = 0.2 + 0.3 * whole + 0.4 * (truth == 2) + rng.normal(0, 0.03, truth.shape)
    return image_of(f"cell-{number}", image, truth)


def radiograph(number: int) -> Image:
    """A phantom under a gradient of brightness that is stronger than its organs and other in every image."""
    whole = make_image(number, shape=(48, 48))
    rng = np.random.default_rng([12, number])
    slope = rng.normal(0, 1, 2)
    y, x = np.meshgrid(np.linspace(-1, 1, 48), np.linspace(-1, 1, 48), indexing="ij")
    assert whole.truth is not None
    shade = 2.5 * (slope[0] * y + slope[1] * x) / np.hypot(*slope)
    return image_of(whole.name, whole.intensities / whole.intensities.max() + shade, whole.truth)


def image_of(name: str, image: np.ndarray, truth: np.ndarray) -> Image:
    return Image(name=name, intensities=image.astype(np.float32), spacing=(1.0, 1.0), physical=False, truth=truth)


def left_out(images: list[Image], config: RegistrationConfig = ONLY_CONTRAST) -> LeftOutSet:
    values = tuple(int(value) for value in np.unique(images[0].truth) if value)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return LeftOutSet(images, Labels("values", values, tuple(map(str, values))), config, ReferenceConfig(), masks=4)


def test_intensities_are_chosen_for_cells_and_the_window_of_local_contrast_under_strong_shading() -> None:
    cells = choose_in_memory(left_out([cell(number) for number in range(5)]), "cpu")
    shaded = choose_in_memory(left_out([radiograph(number) for number in range(5)]), "cpu")
    assert cells.settings.contrast == 0
    assert shaded.settings.contrast == 0.13
    for choice in (cells, shaded):
        (other,) = (trial.mae for trial in choice.trials if trial.settings != choice.settings)
        assert choice.mae < 0.8 * other  # what suits one of them ruins the other


def test_names_and_order_of_the_references_change_nothing() -> None:
    images = [make_image(number) for number in range(4)]
    config = replace(ONLY_CONTRAST, affine=((4, 4),), bspline=((2, 5, 3),))
    first = left_out(images, config)
    second = left_out([replace(image, name=f"z{9 - k}") for k, image in enumerate(reversed(images))], config)
    assert first.key == second.key
    assert choose_in_memory(first, "cpu") == choose_in_memory(second, "cpu")
    assert first.key != left_out(images[:3], config).key
    assert first.key != left_out(images, replace(config, window=2.0)).key


def test_large_sets_cost_no_more_than_eight_references_and_eight_others() -> None:
    many = left_out([make_image(number) for number in range(12)])
    assert len(many) == 8
    assert {len(many.case(index).others) for index in range(len(many))} == {8}
    assert all(many.name(index) not in {o.name for o in many.case(index).others} for index in range(8))
    assert many.masks == 4


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("choice")
    result, content = estimate("rca", *WORDS, f"output.root={root}", directory=root / "run")
    assert result.exit_code == 0, result.output
    return root / "run", content


def test_the_choice_is_said_with_its_evidence_and_the_overrides_that_fix_it(
    chosen: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run, content = chosen
    tried = rows(run)
    assert [row["contrast"] for row in tried] == ["0", "0.13"]
    assert {row["window"] for row in tried} == {"2"}
    log = (run / "log.txt").read_text()
    assert "settings chosen on the references" in log
    assert "3 references" in log
    assert f"{float(tried[0]['mae']):.4f}" in log
    metrics = content["metrics"]
    assert metrics["registration/trials"] == 2
    assert metrics["registration/default_mae"] == pytest.approx(float(tried[0]["mae"]), abs=1e-6)
    words = next(line for line in log.splitlines() if "to fix them: " in line).split("to fix them: ")[1].split()
    given = {word.partition("=")[0] for word in words}
    rest = [word for word in WORDS if word.partition("=")[0] not in given]
    result, again = estimate(
        "rca", *rest, *words, "output.transforms=", f"output.root={tmp_path}", directory=tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "references.csv").read_text() == (run / "references.csv").read_text()
    assert "registration/trials" not in again["metrics"]


def test_a_second_run_on_the_same_references_takes_the_stored_choice(
    chosen: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, content = chosen
    monkeypatch.setattr(LeftOutSet, "score", None)  # whoever measures again fails
    result, again = estimate("rca", *WORDS, f"output.root={run.parent}", "seed=3", directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert rows(tmp_path / "run") == rows(run)
    assert "by an earlier run" in (tmp_path / "run" / "log.txt").read_text()
    same = [name for name in content["metrics"] if name.startswith("registration/")]
    assert {name: again["metrics"][name] for name in same} == {name: content["metrics"][name] for name in same}


def test_a_stopped_choice_continues_with_the_next_reference(
    chosen: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = chosen
    plain, scored = LeftOutSet.score, []

    def watched(self: LeftOutSet, settings: Any, index: int, device: Any) -> Any:
        scored.append((settings, index))
        return plain(self, settings, index, device)

    def stopping(left_out: LeftOutSet, settings: Any, run: Any) -> Any:
        if scored:
            assert isinstance(run.stop, StopFlag)
            run.stop.set("SIGINT")
        return measured(left_out, settings, run)

    measured = settings_choice._measured
    monkeypatch.setattr(LeftOutSet, "score", watched)
    monkeypatch.setattr(settings_choice, "_measured", stopping)
    words = [*WORDS, f"output.root={tmp_path}", "output.transforms="]
    result, _ = estimate("rca", *words, directory=tmp_path / "run")
    assert result.exit_code == 3, result.output
    assert len(scored) == 3
    monkeypatch.setattr(settings_choice, "_measured", measured)
    again = CliRunner().invoke(app, ["resume", str(tmp_path / "run"), "--json"])
    assert again.exit_code == 0, again.output
    assert len(scored) == len(set(scored)) == 6
    assert rows(tmp_path / "run") == rows(run)


def test_with_two_references_the_defaults_are_taken_and_the_log_says_why(tmp_path: Path) -> None:
    words = [
        "data.references=2" if word == "data.references=3" else word for word in [*WORDS, f"output.root={tmp_path}"]
    ]
    result, content = estimate("rca", *words, directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "2 references: choosing needs 3" in (tmp_path / "run" / "log.txt").read_text()
    assert [row["accepted"] for row in rows(tmp_path / "run")] == ["yes"]
    assert content["metrics"]["registration/contrast"] == 0


def test_a_run_that_an_earlier_version_began_is_not_continued_with_other_settings(tmp_path: Path) -> None:
    words = [*WORDS, f"output.root={tmp_path}"]
    result, _ = estimate("rca", *words, directory=tmp_path / "run")
    assert result.exit_code == 0, result.output
    for name in ("results.json", "registration.csv"):
        (tmp_path / "run" / name).unlink()
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    (tmp_path / "run" / "status.json").write_text(json.dumps({**status, "state": "stopped", "exit_code": 3}))
    again = CliRunner().invoke(app, ["resume", str(tmp_path / "run"), "--json"])
    assert again.exit_code == 4, again.output
    assert "earlier version" in json.loads(again.stdout)["error"]


def test_other_classifiers_have_nothing_to_choose_and_take_the_key(tmp_path: Path) -> None:
    words = ["classifier=forest", "registration.choose=false", "--dry-run", "--run-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(app, ["estimate", "rca", *words])
    assert result.exit_code == 0, result.output


def test_two_references_may_be_alike() -> None:
    """An image that stands among the references twice is one reference of the choice."""
    images = [make_image(k) for k in (0, 1, 2)]
    labels = Labels("values", (1, 2), ("a", "b"))
    left_out = LeftOutSet([*images, replace(images[0], name="again")], labels, RegistrationConfig(), ReferenceConfig())
    assert len(left_out) == 3
