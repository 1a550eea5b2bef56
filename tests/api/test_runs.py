"""Runs from Python: the same folders, checks and numbers as the commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import paperbench
from paperbench import errors
from paperbench.cli.app import app

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("python")


@pytest.fixture(scope="module")
def run(folder: Path) -> paperbench.Run:
    return paperbench.train("vae", smoke=True, output={"root": str(folder)}, progress=False)


def test_a_run_holds_what_its_folder_holds(run: paperbench.Run, folder: Path) -> None:
    results = json.loads((run.path / "results.json").read_text())

    assert run.path.parent == folder / "vae"
    assert run.state == "done"
    assert run.metrics == results["metrics"]
    assert run.config.scale == run.config["scale"] == "smoke"
    assert run.config.optim.lr == run.config["optim"]["lr"]
    assert run.figures
    assert run.history["train/loss"].dtype == np.float64
    assert run.history["train/loss"].shape == run.history.steps("train/loss").shape
    assert run.history.steps("train/loss")[-1] == results["metrics"].get(
        "train/steps", run.history.steps("train/loss")[-1]
    )


def test_the_same_run_by_command_has_the_same_numbers(run: paperbench.Run, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "vae", "--smoke", "--json", "--run-dir", str(tmp_path / "run")])

    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)["metrics"]
    assert {key: value for key, value in metrics.items() if "second" not in key} == {
        key: value for key, value in run.metrics.items() if "second" not in key
    }


def test_a_run_is_loaded_from_its_folder_or_a_file_in_it(run: paperbench.Run) -> None:
    assert paperbench.load(run.path).metrics == run.metrics
    assert paperbench.load(str(run.path / "checkpoints" / "last.pt")).path == run.path
    with pytest.raises(errors.ConfigError, match=r"^/nowhere: no such run"):
        paperbench.load("/nowhere")


def test_runs_are_filtered_and_sorted_as_by_the_command(run: paperbench.Run, folder: Path) -> None:
    assert [found.path for found in paperbench.runs(root=folder)] == [run.path]
    assert len(paperbench.runs("test/bound>=-1e6", root=folder, experiment="vae", state="done")) == 1
    assert len(paperbench.runs(root=folder, state="failed")) == 0
    assert "seed" in paperbench.runs(root=folder, seed=0)._repr_html_()
    with pytest.raises(errors.ConfigError, match="no run below"):
        paperbench.runs(root=folder, no_such_key=1)
    (folder / "empty").mkdir()
    assert len(paperbench.runs(root=folder / "empty")) == 0
    with pytest.raises(errors.ConfigError, match=r"root='.*nowhere': no such folder"):
        paperbench.runs(root=folder / "nowhere")


def test_the_model_is_a_module_in_eval_mode(run: paperbench.Run) -> None:
    model = run.model

    assert isinstance(model, torch.nn.Module)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    saved = torch.load(run.path / "checkpoints" / "last.pt", weights_only=True)["module"]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_arrays_pictures_and_files_are_predicted_alike(run: paperbench.Run, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(array).save(tmp_path / "digit.png")

    answers = [
        run.predict(image, output=tmp_path / str(number))[0]["latent"]
        for number, image in enumerate(
            (array, Image.fromarray(array), tmp_path / "digit.png", str(tmp_path / "digit.png"))
        )
    ]

    assert answers[0] == answers[1] == answers[2] == answers[3]
    several = run.predict([array, array], output=tmp_path / "both")
    assert len(several) == 2
    assert "data:image/png;base64," in several._repr_html_()
    with pytest.raises(errors.DataError, match=r"image 0: an array of float64 .*give uint8"):
        run.predict(np.zeros((28, 28)))
    with pytest.raises(errors.DataError, match="no such image file"):
        run.predict(tmp_path / "absent.png")


def test_an_option_of_predict_that_does_not_exist_is_named(run: paperbench.Run, tmp_path: Path) -> None:
    image = np.zeros((28, 28), np.uint8)

    with pytest.raises(errors.ConfigError, match=r"^skip_damage: .*no such option. Nearest: skip_damaged"):
        run.predict(image, output=tmp_path, skip_damage=True)
    with pytest.raises(errors.ConfigError, match=r"^zzz: .*Options: output, skip_damaged, device$"):
        run.predict(image, output=tmp_path, zzz=1)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no image was given"),
        (np.zeros((0, 28, 28, 3), np.uint8), "no image was given"),
        (np.zeros((0, 28), np.uint8), r"shape \(0, 28\)"),
        (np.zeros((3, 28, 28), np.uint8), r"image 0: .*transpose\(1, 2, 0\)"),
        (torch.zeros(3, 28, 28, dtype=torch.uint8), r"image 0: .*shape \(3, 28, 28\).*transpose"),
        ([np.zeros((28, 28), np.uint8), np.zeros((28, 28, 4), np.uint8)], r"image 1: .*image\[:, :, :3\]"),
        (np.zeros((5, 28, 28), np.uint8), r"list of arrays \(H, W\)"),
        (None, "images: a NoneType"),
        (7, "images: a int"),
        (b"digit.png", "images: a bytes"),
        ([[0, 1], [2, 3]], "image 0: a list"),
        (".", "a folder"),
    ],
)
def test_what_is_no_image_is_refused_with_the_remedy(run: paperbench.Run, images: object, message: str) -> None:
    with pytest.raises(errors.DataError, match=message):
        run.predict(images)


def test_an_array_of_several_images_is_each_of_them(run: paperbench.Run, tmp_path: Path) -> None:
    several = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), np.uint8)

    together = run.predict(several, output=tmp_path / "array")
    one_by_one = run.predict(list(several), output=tmp_path / "list")

    assert [answer["latent"] for answer in together] == [answer["latent"] for answer in one_by_one]
    assert len(together) == 2
    as_tensor = run.predict(torch.as_tensor(several), output=tmp_path / "tensor")
    assert as_tensor[1]["latent"] == together[1]["latent"]


def test_a_name_that_was_not_logged_is_answered_with_those_that_were(run: paperbench.Run) -> None:
    with pytest.raises(KeyError, match=r"Nearest: train/loss"):
        run.history["train/los"]
    with pytest.raises(KeyError, match=r"There are: .*train/loss"):
        run.history.steps("typo")
    assert "typo" not in run.history
    assert run.history.get("typo") is None


def test_it_is_evaluated_again(run: paperbench.Run, folder: Path) -> None:
    again = paperbench.evaluate(run, progress=False)

    assert again.metrics["test/bound"] == pytest.approx(run.metrics["test/bound"])
    assert again.path != run.path


def test_a_run_that_is_not_evaluated_again_says_so() -> None:
    with pytest.raises(errors.ConfigError, match=r"stn-mnist is measured at the end of its training.*vae-train"):
        paperbench.evaluate("stn-mnist", checkpoint="/nowhere")


def test_mistakes_are_one_exception_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(errors.ConfigError) as caught:
        paperbench.train("vae", "optim.lrr=1", model={"latnet": 3})

    assert len(caught.value.mistakes) == 2
    assert "Nearest: optim.lr" in caught.value.mistakes[0]
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_is_its_runs(folder: Path) -> None:
    sweep = paperbench.sweep("vae", seed=[0, 1], smoke=True, output={"root": str(folder / "sweep")}, progress=False)

    assert [run.config.seed for run in sweep] == [0, 1]
    assert sweep.failures == {}
    assert sweep[0].metrics != sweep[1].metrics
    assert "<th>seed</th>" in sweep._repr_html_()
    again = paperbench.sweep("vae", seed=[0, 1], smoke=True, output={"root": str(folder / "sweep")}, progress=False)
    assert [run.path for run in again] == [run.path for run in sweep]


def test_the_names_of_functions_stay_functions_whatever_is_imported() -> None:
    """A subpackage of the same name would replace the function once it is imported."""
    code = (
        "import paperbench, pkgutil, importlib\n"
        "for module in pkgutil.walk_packages(paperbench.__path__, 'paperbench.'):\n"
        "    if '__main__' not in module.name:\n"
        "        try: importlib.import_module(module.name)\n"
        "        except ImportError: pass\n"
        "print(*(name for name in ('train', 'evaluate', 'estimate', 'sweep', 'reproduce', 'load', 'runs', 'resume')\n"
        "        if not callable(getattr(paperbench, name))))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_an_interrupt_saves_and_raises_stopped(tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(errors.Stopped, match=r"paperbench\.resume\("):
        paperbench.train(
            "vae", smoke=True, run_dir=tmp_path / "run", train={"samples": 2_000_000, "log_every": 1}, progress=False
        )

    assert paperbench.load(tmp_path / "run").state == "stopped"


def test_a_failed_member_of_a_sweep_is_named_and_raises_nothing(folder: Path) -> None:
    """A rate that no training survives fails its run alone."""
    sweep = paperbench.sweep(
        "vae", smoke=True, optim={"lr": [0.01, 1e30]}, output={"root": str(folder / "failing")}, progress=False
    )

    assert [run.state for run in sweep] == ["done", "failed"]
    assert list(sweep.failures) == [sweep[1].path]
    assert sweep.failures[sweep[1].path] == sweep[1].message != ""


def test_the_generators_of_the_caller_are_left_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(3)
    np.random.seed(3)
    environment = dict(os.environ)

    paperbench.train("vae", smoke=True, run_dir=tmp_path / "run", progress=False)

    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.rand(2), expected[1])
    assert dict(os.environ) == environment


def test_runs_of_two_threads_give_the_numbers_that_each_gives_alone(run: paperbench.Run, tmp_path: Path) -> None:
    found: dict[int, paperbench.Run] = {}

    def train(number: int) -> None:
        found[number] = paperbench.train("vae", smoke=True, run_dir=tmp_path / str(number), progress=False)

    threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number in range(2):
        assert found[number].metrics["test/bound"] == run.metrics["test/bound"]


def test_a_run_is_found_after_the_folder_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = paperbench.train("vae", smoke=True, progress=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert run.path.is_absolute()
    assert len(run.history["train/loss"])
    assert run.figures


def test_what_is_no_text_or_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="experiments and overrides are text"):
        paperbench.train("vae", {"optim.lr": 1})  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigError, match="limit=-1: give 1 or more"):
        paperbench.runs(root=tmp_path, limit=-1)
