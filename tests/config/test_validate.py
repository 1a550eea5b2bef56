"""Configurations without Hydra: reading, dumping and hashing what a run has stored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from paperbench.catalog import TASKS
from paperbench.config.compose import compose
from paperbench.config.validate import config_hash, dump, load_file, task_named, validate
from paperbench.errors import ConfigError, DataError
from tests.user_folder import write

TRAIN = TASKS["detect-train"]


def test_a_stored_configuration_comes_back_unchanged(tmp_path: Path) -> None:
    composed = compose("faster-rcnn", ["optim.lr=1e-5", "data=voc"])
    file = write(tmp_path / "config.yaml", yaml.safe_dump(composed.resolved))

    task, config, resolved = load_file(file)
    assert task is composed.task
    assert config == composed.config
    assert resolved == composed.resolved == dump(config)


def test_defaults_fill_what_an_older_file_lacks() -> None:
    resolved = dump(validate(TRAIN, {"task": "detect-train"}))

    assert resolved["optim"]["momentum"] == 0.9
    assert resolved["data"]["name"] == "shapes"


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, DataError, "no such file"),
        ("a: [1\n", DataError, "not YAML"),
        ("- 1\n", DataError, "found list"),
        ("", DataError, "found NoneType"),
        ("task: detect-trian\n", ConfigError, "Nearest: detect-train"),
        ("seed: 1\n", ConfigError, "says no task"),
        ("task: detect-train\nsede: 1\n", ConfigError, "sede: no such key (in "),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str | None, error: type[Exception], said: str) -> None:
    file = tmp_path / "config.yaml"
    if content is not None:
        file.write_text(content, encoding="utf-8")

    with pytest.raises(error) as caught:
        load_file(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_binary_file_is_damaged_too(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(DataError, match="cannot be read"):
        load_file(file)


def test_a_data_set_of_another_task() -> None:
    with pytest.raises(ConfigError, match=r"cannot use mnist.* It takes shapes, voc, coco, yolo, pennfudan"):
        validate(TRAIN, {"data": {"name": "mnist"}})


def test_unknown_tasks_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Nearest: detect-eval"):
        task_named("detect-evall")
    with pytest.raises(ConfigError, match="Tasks: detect-train"):
        task_named(17)


# --- the hash ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "output.root=/else",
        "tensorboard=true",
        "train.log_every=1",
        "train.checkpoint_every=3",
        "train.prefetch=0",
        "data.cache_mb=1",
    ],
)
def test_the_hash_ignores_what_changes_no_result(override: str) -> None:
    assert config_hash(compose("faster-rcnn", [override]).resolved) == config_hash(compose("faster-rcnn").resolved)


@pytest.mark.parametrize(
    "override", ["seed=1", "optim.lr=0.5", "device=cpu", "data.size=64", "train.batch_size=3", "nproc=2"]
)
def test_the_hash_sees_what_does(override: str) -> None:
    assert config_hash(compose("faster-rcnn", [override]).resolved) != config_hash(compose("faster-rcnn").resolved)


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    resolved = compose("faster-rcnn").resolved
    backwards = {key: resolved[key] for key in reversed(resolved)}

    assert list(backwards) != list(resolved)
    assert config_hash(backwards) == config_hash(resolved)
    assert len(config_hash(resolved)) == 64


def test_workers_need_neither_hydra_nor_torch() -> None:
    code = (
        "import sys, paperbench.config.validate as v; v.validate(v.task_named('detect-train'), {}); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "paperbench.detection.config" in loaded
    assert not {"torch", "hydra", "omegaconf"} & {name.partition(".")[0] for name in loaded}
