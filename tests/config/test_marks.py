"""Marks on the fields of schemas: paths, what files hold, keys that change nothing."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest

import paperbench
from paperbench.catalog import TASKS
from paperbench.config import digests
from paperbench.config.compose import compose
from paperbench.config.fields import every_key, members, strip
from paperbench.config.marks import (
    AS_WRITTEN,
    CONTENT_COUNTS,
    OR_NAME,
    AnyPath,
    FilePath,
    Incidental,
    PathMark,
    mark,
    marks,
)
from paperbench.config.validate import config_hash, incidental, schema_of
from paperbench.errors import ConfigError
from tests.user_folder import write

NAMES_OF_PATHS = re.compile(
    r"(^|_)(root|folder|dir|directory|path|file|weights|checkpoint|run|teacher|gt|dt|images|masks|truth|manifest|scores"
    r"|calibration|transforms|logits|proposals)$"
)


def texts() -> Iterator[tuple[str, str, Any]]:
    """Task, key and annotation of every key that takes text, or a list of texts."""
    for task in TASKS.values():
        for key, annotation in every_key(schema_of(task)):
            if str in _types(annotation):
                yield task.name, key, annotation


def _types(annotation: Any) -> set[Any]:
    found: set[Any] = set()
    for member in members(annotation):
        bare = strip(member)[0]
        found |= {bare, *(strip(item)[0] for item in getattr(bare, "__args__", ()))}
    return found


def test_marks_are_found_inside_unions_and_tuples() -> None:
    assert mark(FilePath, PathMark) == PathMark("file")
    optional = Annotated[FilePath, OR_NAME] | None  # pyright: ignore[reportOperatorIssue]
    assert mark(optional, PathMark) == PathMark("file")
    assert list(marks(tuple[Annotated[AnyPath, CONTENT_COUNTS], ...], PathMark)) == [PathMark("any")]
    assert mark(str | None, PathMark) is None


def test_every_key_that_is_named_like_a_path_is_one() -> None:
    named = {(task, key) for task, key, annotation in texts() if NAMES_OF_PATHS.search(key.rpartition(".")[2])}
    unmarked = {
        (task, key) for task, key, annotation in texts() if (task, key) in named and mark(annotation, PathMark) is None
    }

    assert {"proposals.train_file", "proposals.run", "model.proposals_weights", "teacher", "segmenters.folder"} <= {
        key for _, key in named
    }
    assert unmarked == set()


def test_every_key_that_is_used_like_a_path_is_one() -> None:
    """`Path(config.section.key)` or `expanded(…)` anywhere in the program makes `key` a path."""
    paths = {key.rpartition(".")[2] for _, key, annotation in texts() if mark(annotation, PathMark)}
    plain = {key.rpartition(".")[2] for _, key, annotation in texts()} - paths
    used: set[str] = set()
    for file in Path(paperbench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Path", "expanded"):
                used |= {inner.attr for arg in node.args for inner in ast.walk(arg) if isinstance(inner, ast.Attribute)}

    assert {"gt", "scores", "root"} <= used
    assert used & plain - {"name", "experiment", "task"} == set()


# --- paths are stored absolute ----------------------------------------------------------------------------------------


def test_paths_of_every_kind_become_absolute(tmp_path: Path) -> None:
    composed = compose(
        "fast-rcnn", ["proposals.method=file", "proposals.train_file=a/train.npz", "model.weights=DEFAULT"]
    )

    assert composed.config.proposals.train_file == str(tmp_path / "a/train.npz")
    assert composed.config.proposals.run is None
    assert composed.config.model.weights == "DEFAULT"


def test_a_list_of_paths(tmp_path: Path) -> None:
    (tmp_path / "logits.npy").touch()

    assert compose("distill", ["teacher=[logits.npy,elsewhere]"]).config.teacher == (
        str(tmp_path / "logits.npy"),
        "elsewhere",
    )
    assert compose("rca", ["images=i", "masks=[m,n]"]).config.masks == (str(tmp_path / "m"), str(tmp_path / "n"))


@pytest.mark.parametrize(
    ("experiment", "key"),
    [
        ("faster-rcnn", "output.root"),
        ("rca", "output.transforms"),
        ("rca", "images"),
        ("rca-segmenters", "segmenters.folder"),
        ("fast-rcnn", "proposals.test_file"),
    ],
)
def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, experiment: str, key: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))

    value: Any = compose(experiment, [f"{key}=~/here"]).resolved
    for name in key.split("."):
        value = value[name]
    assert value == str(tmp_path / "home/here")


def test_the_folder_of_runs_stays_as_written() -> None:
    assert AS_WRITTEN in list(marks(dict(every_key(schema_of(TASKS["detect-train"])))["output.root"], type(AS_WRITTEN)))
    assert compose("faster-rcnn", ["output.root=mine"]).config.output.root == "mine"


# --- what files hold --------------------------------------------------------------------------------------------------


def _hash(*overrides: str, experiment: str = "fast-rcnn") -> str:
    return config_hash(compose(experiment, overrides).resolved)


@pytest.mark.parametrize(
    ("experiment", "overrides", "file"),
    [
        ("fast-rcnn", ("proposals.method=file", "proposals.train_file=boxes.npz"), "boxes.npz"),
        ("fast-rcnn", ("proposals.method=file", "proposals.test_file=boxes.npz"), "boxes.npz"),
        ("distill", ("teacher=logits.npy",), "logits.npy"),
        ("rca-scores", ("scores=scores.csv",), "scores.csv"),
    ],
)
def test_what_a_file_holds_belongs_to_the_hash(experiment: str, overrides: tuple[str, ...], file: str) -> None:
    absent = _hash(*overrides, experiment=experiment)
    write(Path(file), "one")
    first = _hash(*overrides, experiment=experiment)
    write(Path(file), "another")
    second = _hash(*overrides, experiment=experiment)
    write(Path(file), "one")

    assert len({absent, first, second}) == 3
    assert _hash(*overrides, experiment=experiment) == first


@pytest.mark.parametrize(
    ("experiment", "override"), [("distill", "teacher=run"), ("distill", "teacher=run/checkpoints/distilled")]
)
def test_what_a_run_learned_belongs_to_the_hash(tmp_path: Path, experiment: str, override: str) -> None:
    def saved(sha256: str, step: int) -> None:
        entry = {"sha256": sha256, "step": step, "bytes": 1}
        manifest = {"schema_version": 1, "files": {"last.pt": [entry], "best.pt": [{**entry, "sha256": "b"}]}}
        write(tmp_path / "run/checkpoints/distilled/manifest.json", json.dumps(manifest | {"sha": sha256}))

    saved("a", 1)
    first = _hash(override, experiment=experiment)
    saved("c", 2)
    assert _hash(override, experiment=experiment) == first  # its best is still the same
    text = (tmp_path / "run/checkpoints/distilled/manifest.json").read_text(encoding="utf-8")
    write(tmp_path / "run/checkpoints/distilled/manifest.json", text.replace('"b"', '"d"'))
    assert _hash(override, experiment=experiment) != first


def test_digests_stand_in_the_configuration_only_where_there_are_any() -> None:
    assert "digests" not in compose("fast-rcnn").resolved
    write(Path("boxes.npz"), "one")
    composed = compose("fast-rcnn", ["proposals.method=file", "proposals.train_file=boxes.npz"])

    assert list(composed.resolved["digests"]) == ["proposals.train_file"]
    with pytest.raises(ConfigError, match=r"digests.x=1: cannot be set, it follows from the files"):
        compose("fast-rcnn", ["digests.x=1"])


def test_a_key_that_came_later_stands_in_the_configuration_only_where_it_is_used() -> None:
    alone = compose("ssd", ["data=voc"])
    assert "train" not in alone.resolved["data"]
    assert alone.config.data.train == ()
    assert compose("ssd", ["data=voc", "data.train=[]"]).resolved == alone.resolved
    both = compose("ssd", ["data=voc", "data.train=[2007/trainval,2012/trainval]"])
    assert both.resolved["data"]["train"] == ["2007/trainval", "2012/trainval"]
    with pytest.raises(ConfigError, match=r"data.train.*a year and a split, such as 2007/trainval"):
        compose("ssd", ["data=voc", "data.train=[2007trainval]"])


def test_a_file_that_changed_since_is_named() -> None:
    file = write(Path("boxes.npz"), "one").absolute()
    composed = compose("fast-rcnn", ["proposals.method=file", "proposals.train_file=boxes.npz"])
    digests.check(type(composed.config), composed.resolved, Path("run/config.yaml"))

    write(file, "another")
    with pytest.raises(ConfigError, match=r"proposals.train_file: .*boxes.npz has changed since the run began"):
        digests.check(type(composed.config), composed.resolved, Path("run/config.yaml"))
    file.unlink()  # for the task to complain about, where it is still needed
    digests.check(type(composed.config), composed.resolved, Path("run/config.yaml"))


def test_a_large_file_is_known_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("boxes.npz"), "one")
    monkeypatch.setattr(digests, "MOST_BYTES", 2)

    assert digests.digest(Path("boxes.npz")) is None


# --- keys that change nothing -----------------------------------------------------------------------------------------


def test_incidental_keys() -> None:
    unhashed = {"output", "output.root", "tensorboard", "train.log_every", "train.prefetch", "data.cache_mb"}
    hashed = {"seed", "device", "nproc", "threads", "precision", "data.root", "evaluation.bootstrap", "digests.teacher"}

    assert {key for key in unhashed if incidental(key, hashed=False)} == unhashed
    assert {key for key in unhashed | hashed if incidental(key)} == unhashed | hashed
    assert [key for key in hashed if incidental(key, hashed=False)] == []
    assert [
        key for key in ("optim.lr", "data", "data.size", "train", "nonsense", "temperature") if incidental(key)
    ] == []


def test_a_key_means_the_same_in_every_task_that_has_it() -> None:
    meanings: dict[str, set[Incidental | None]] = {}
    for task in TASKS.values():
        for key, annotation in every_key(schema_of(task)):
            meanings.setdefault(key, set()).add(mark(annotation, Incidental))

    assert {key: found for key, found in meanings.items() if len(found) > 1} == {}


def test_an_evaluation_refuses_a_file_that_changed_since_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boxes.npz").write_bytes(b"one")
    file = tmp_path / "config.yaml"
    base = compose("fast-rcnn", ["proposals.method=file", "proposals.test_file=boxes.npz"]).resolved

    same = compose("fast-rcnn", ["checkpoint=runs/a"], base=base, base_file=file)
    assert same.resolved["digests"]["proposals.test_file"] == base["digests"]["proposals.test_file"]
    (tmp_path / "boxes.npz").write_bytes(b"another")
    (tmp_path / "own.npz").write_bytes(b"another")
    with pytest.raises(
        ConfigError,
        match=r"^proposals.test_file: .*boxes.npz has changed since the run was trained \(.*config.yaml\); put",
    ):
        compose("fast-rcnn", ["checkpoint=runs/a"], base=base, base_file=file)
    compose("fast-rcnn", ["checkpoint=runs/a", "proposals.test_file=own.npz"], base=base, base_file=file)


def test_every_file_of_a_list_is_in_its_digest(tmp_path: Path) -> None:
    files = [write(tmp_path / name, name) for name in ("a", "b")]
    schema = schema_of(TASKS["distill"])

    def digest() -> str:
        return digests.digests_of(schema, {"teacher": [str(file) for file in files]})["teacher"]

    found = [digest()]
    for file in files:
        write(file, "something else")
        digests._of_file.cache_clear()
        found.append(digest())
    assert len(set(found)) == 3
