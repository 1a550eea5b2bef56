"""Teachers that are trained already, and the logits of every teacher.

`teacher=RUN` takes the teacher (or all of an ensemble) of a run of this program, `teacher=RUN/checkpoints/distilled` another of
its nets. A file may hold a state dict of fully connected layers or of a classifier of torchvision, a checkpoint of this program, a
net as TorchScript or ONNX (`executed_teachers`), or logits (`.npy`, `.npz`, or a file
of `torch.save` with the key `logits`), one row for each training image in the order of the data set.

The logits of a net are computed once and stored in `<output.root>/nets/logits-<hash of weights and images>/` with their SHA-256;
every run with the same teacher and the same images reads them from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from paperbench.config.paths import expanded
from paperbench.distill import executed_teachers
from paperbench.distill.batches import Images
from paperbench.distill.evaluation import logits_of, scores
from paperbench.distill.executed_teachers import ExecutedTeacher
from paperbench.distill.nets import Net, Pixels, absorb_normalisation, from_weights
from paperbench.distill.teacher_checks import (
    are_probabilities,
    better_normalisation,
    fault_of_logits,
    logits_of_probabilities,
)
from paperbench.distill.torchvision_nets import Classifier
from paperbench.engine.arrays import read_arrays
from paperbench.engine.checkpoints import CheckpointStore, load_for_evaluation
from paperbench.engine.run import Run
from paperbench.engine.store import StoreEntry, content_key
from paperbench.errors import CheckpointError, ConfigError, DataError

_STAGES = ("teacher", "generalist", "distilled", "baseline")
_NESTED = ("state_dict", "model_state_dict", "model", "net")
_ARRAYS = (".npy", ".npz")

Values = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class StoredLogits:
    """train: (N, K) float32. test: (Nt, K), or None where the file has none."""

    train: Tensor
    test: Tensor | None


def find_teachers(place: str) -> list[Path]:
    """Return the files or stage folders that `place` names, several for a run with an ensemble; reads none of them.

    Raises ConfigError where there is none.
    """
    path = expanded(place)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"teacher={place}: there is no such run or file; `paperbench runs` lists the runs there are")
    if not (path / "checkpoints").is_dir():
        if _has_checkpoint(path):
            return [path]
        raise ConfigError(
            f"teacher={place}: no run directory; name a run, a folder of its checkpoints, or a file with weights or logits"
        )
    folder = path / "checkpoints"
    ensemble = sorted(folder.glob("teacher-*"), key=lambda entry: (len(entry.name), entry.name))
    if found := [entry for entry in ensemble if _has_checkpoint(entry)]:
        return found
    for name in _STAGES:
        if _has_checkpoint(folder / name):
            return [folder / name]
    raise ConfigError(
        f"teacher={place}: has no trained net; it must be a run of `paperbench train distill` that got that far"
    )


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("last.pt", "best.pt"))


def load_teacher(
    path: Path,
    *,
    train: Images,
    test: Images,
    mean: Pixels,
    std: Pixels,
    values: Values = "logits",
    cut: tuple[int, int] = (0, 0),
) -> Net | Classifier | ExecutedTeacher | StoredLogits:
    """Read the teacher in a file or stage folder. mean, std: the normalisation of its training, for nets of other programs.
    values: what a file of logits holds. cut: `max_train_images` and `max_test_images`: with either, logits of further images are
    left out, those of the first ones are used.

    Raises DataError or CheckpointError naming the file and what does not fit.
    """
    if len(train.classes) < 2:
        raise DataError(f"{path}: cannot teach data of one class")
    if path.is_file() and executed_teachers.is_executed(path):
        executed = executed_teachers.load(
            path, size=train.size, classes=len(train.classes), probabilities=values == "probabilities"
        )
        executed.normalise(mean, std)
        _check_values(path, executed, train)
        return executed
    content, ours = _content(path)
    if "logits" in content:
        return _stored(path, content, train, test, values, cut)
    weights = _weights(content)
    try:
        net = from_weights(weights, size=train.size, classes=len(train.classes))
    except ValueError as error:
        raise DataError(
            f"{path}: cannot be a teacher of these data: {error}. Any other net can teach by its logits: store them for all "
            f"{len(train)} training images, (images, classes), with numpy.save, and name that file"
        ) from None
    if not ours and (mean, std) != (0.0, 1.0):
        absorb_normalisation(net, mean=mean, std=std, size=train.size)
    return net


def _check_values(path: Path, teacher: ExecutedTeacher, images: Images) -> None:
    """Raise DataError for a net that answers probabilities and is read as one of logits, and the other way round."""
    some = images.select(torch.linspace(0, len(images) - 1, min(8, len(images))).long().to(images.labels.device))
    expected, teacher.probabilities = teacher.probabilities, False
    found = are_probabilities(logits_of(teacher, some, batch_size=8))
    teacher.probabilities = expected
    if found and not expected:
        raise DataError(
            f"{path}: its answers to each image have the same sum, so they are probabilities and no logits; "
            "teacher_values=probabilities takes their logarithms"
        )
    if expected and not found:
        raise DataError(f"{path}: its answers are no probabilities; leave teacher_values out")


def remarks_on(
    teacher: Net | Classifier | ExecutedTeacher | StoredLogits,
    path: Path,
    *,
    train: Images,
    test: Images,
    mean: Pixels,
    std: Pixels,
) -> list[str]:
    """Return what the answers of a teacher of other programs tell against the given normalisation of its pixels."""
    if isinstance(teacher, StoredLogits) or _is_ours(path):
        return []
    better = better_normalisation(teacher, (train, test), mean=mean, std=std)
    return [f"{path}: {better}"] if better else []


def _is_ours(path: Path) -> bool:
    return path.is_dir() or (path.parent / "manifest.json").is_file()


def _content(path: Path) -> tuple[Mapping[str, Any], bool]:
    """Return the content of the file, and whether this program wrote it."""
    if path.suffix in _ARRAYS:
        return _arrays(path), False
    if _is_ours(path):
        state, _, _ = load_for_evaluation(path, which="last")
        return state, True
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Files that are no checkpoints fail in half a dozen ways with one meaning, and torch's advice would execute their content.
        raise CheckpointError(
            f"{path}: holds no plain tensors that could be read; store a state dict, torch.save(net.state_dict(), FILE), "
            "or logits"
        ) from error
    if isinstance(content, Tensor):
        return {"logits": content}, False
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: holds a {type(content).__name__}; a teacher is a state dict or an array of logits")
    return content, False


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        loaded = read_arrays(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable NumPy file: {error}") from error
    arrays = {"logits": loaded} if isinstance(loaded, np.ndarray) else loaded
    if "logits" not in arrays:
        raise DataError(f"{path}: has no array called logits; it has {', '.join(arrays) or 'none'}")
    return {
        name: torch.from_numpy(np.ascontiguousarray(arrays[name]))
        for name in arrays
        if arrays[name].dtype.kind in "fiu"
    }


def _weights(content: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(content.get("weights"), Mapping):
        return content["weights"]
    if isinstance(content.get("module"), Mapping):  # a training of ours: the net is a part of what is trained
        return {name.removeprefix("net."): value for name, value in content["module"].items()}
    for key in _NESTED:
        if isinstance(content.get(key), Mapping):
            return content[key]
    return content


def _stored(
    path: Path, content: Mapping[str, Any], train: Images, test: Images, values: Values, cut: tuple[int, int]
) -> StoredLogits:
    for key, images in (("images", train), ("test_images", test)):
        recorded = content.get(key)
        if isinstance(recorded, str) and recorded != images.fingerprint:
            split = "training" if images is train else "test"
            raise DataError(
                f"{path}: its logits are of other {split} images than {images.name} has now; "
                "use them with the data that they were computed on"
            )
    logits = _checked(path, _first(content["logits"], train, cut[0]), train, "logits", "training", values)
    test_logits = _first(content.get("test_logits"), test, cut[1])
    return StoredLogits(
        logits, None if test_logits is None else _checked(path, test_logits, test, "test_logits", "test", values)
    )


def _first(value: Any, images: Images, cut: int) -> Any:
    """Return the rows of the images that are used, where the data set is `cut` to its first ones."""
    return value[: len(images)] if cut and isinstance(value, Tensor) and value.ndim == 2 else value


def _checked(path: Path, value: Any, images: Images, key: str, split: str, values: Values) -> Tensor:
    expected = (len(images), len(images.classes))
    if not isinstance(value, Tensor) or tuple(value.shape) != expected:
        found = " x ".join(map(str, value.shape)) if isinstance(value, Tensor) else type(value).__name__
        raise DataError(
            f"{path}: {key} is {found}; {expected[0]} {split} images and {expected[1]} classes need {expected[0]} x {expected[1]}"
        )
    logits = value.to(torch.float32)
    if not bool(torch.isfinite(logits).all()):
        row = int((~torch.isfinite(logits)).any(1).nonzero()[0])
        raise DataError(f"{path}: {key}, row {row}: not finite")
    if are_probabilities(logits) != (values == "probabilities"):
        said = (
            "all rows have the same sum, so these are probabilities and no logits; teacher_values=probabilities takes their "
            "logarithms"
        )
        if values == "probabilities":
            said = "not all rows are nonnegative and of the same sum, so these are no probabilities; leave teacher_values out"
        raise DataError(f"{path}: {key}: {said}")
    if values == "probabilities":
        logits = logits_of_probabilities(value)
    rows = images.labelled
    if len(rows) and (fault := fault_of_logits(logits[rows.cpu()], images.labels[rows], images.classes)):
        raise DataError(f"{path}: {key} of the {split} images: {fault}")
    return logits


# --- their logits -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TeacherLogits:
    """Logits of one teacher. train: (N, K), test: (Nt, K) or None for stored logits without them; float32, on the device."""

    train: Tensor
    test: Tensor | None


def compute_logits(
    net: Net | Classifier, *, train: Images, test: Images, run: Run, folder: Path, batch_size: int
) -> TeacherLogits:
    """Return the logits of `net` for all images, from `folder` where they were computed before."""
    weights = [part for name, value in net.state_dict().items() for part in (name.encode(), value.cpu().numpy())]
    key = content_key(f"{train.fingerprint} {test.fingerprint} {run.device.type}", *weights)
    entry = StoreEntry(folder, key, prefix="logits-")
    logits = _read(entry, train=train, test=test)
    if logits is None:
        logits = tuple(logits_of(net, images, batch_size=batch_size).cpu() for images in (train, test))
        _write(entry, *logits, train=train, test=test)
    return TeacherLogits(*(part.to(run.device) for part in logits))


def _read(entry: StoreEntry, *, train: Images, test: Images) -> tuple[Tensor, ...] | None:
    try:
        loaded = CheckpointStore(entry.path, sweep=False).load()
    except CheckpointError:
        return None  # damaged: they are computed again
    if loaded is None:
        return None
    state, _ = loaded
    same = state.get("images") == train.fingerprint and state.get("test_images") == test.fingerprint
    return (state["logits"], state["test_logits"]) if same else None


def _write(entry: StoreEntry, logits: Tensor, test_logits: Tensor, *, train: Images, test: Images) -> None:
    """Write the logits, unless another process is just writing the same ones."""
    with entry.try_locked() as acquired:
        if acquired:
            state = {
                "logits": logits,
                "test_logits": test_logits,
                "images": train.fingerprint,
                "test_images": test.fingerprint,
            }
            CheckpointStore(entry.path).save(state, step=0)


class PretrainedTeacher:
    """A teacher that the configuration names. The run keeps a copy of its weights or logits."""

    def __init__(
        self,
        name: str,
        path: Path,
        run: Run,
        *,
        mean: Pixels,
        std: Pixels,
        values: Values = "logits",
        cut: tuple[int, int] = (0, 0),
    ) -> None:
        self.name = name
        self.path = path
        self.metrics: dict[str, float] = {}
        self._run = run
        self._normalisation: dict[str, Pixels] = {"mean": mean, "std": std}
        self._values: Values = values
        self._cut = cut
        self._own = CheckpointStore(run.directory.checkpoints / name, run.reporter)

    def logits(self, *, train: Images, test: Images, folder: Path, batch_size: int) -> TeacherLogits:
        """Return its logits for all images, and set `metrics` to its scores on the test images."""
        loaded = self._own.load() if self._own.exists() else None
        source = self._own.directory if loaded is not None else self.path
        if loaded is None:
            teacher = load_teacher(
                source, train=train, test=test, values=self._values, cut=self._cut, **self._normalisation
            )
            for remark in remarks_on(teacher, source, train=train, test=test, **self._normalisation):
                self._run.reporter.message(f"{self.name}: {remark}")
            if isinstance(teacher, ExecutedTeacher):
                answers = (
                    logits_of(teacher.to(self._run.device), images, batch_size=batch_size).cpu()
                    for images in (train, test)
                )
                teacher = StoredLogits(*answers)
            self._own.save(_state(teacher, train, test), step=0)
        else:
            teacher = load_teacher(source, train=train, test=test, mean=0.0, std=1.0)
        assert not isinstance(teacher, ExecutedTeacher)
        if isinstance(teacher, StoredLogits):
            device = self._run.device
            logits = TeacherLogits(teacher.train.to(device), None if teacher.test is None else teacher.test.to(device))
        else:
            net = teacher.to(self._run.device)
            logits = compute_logits(net, train=train, test=test, run=self._run, folder=folder, batch_size=batch_size)
            rows = train.labelled
            if len(rows) and (order := fault_of_logits(logits.train[rows], train.labels[rows], train.classes)):
                self._run.reporter.message(f"{self.name}: {self.path}: {order}")
        if logits.test is not None:
            self.metrics = scores(logits.test, test.labels)
            if self.metrics["test/accuracy"] < _SUSPICIOUS_ACCURACY:
                self._run.reporter.message(
                    f"{self.name}: {self.path} classifies only {self.metrics['test/accuracy']:.1f} % of the test images "
                    "correctly; if its training normalised pixels, set teacher_mean and teacher_std"
                )
        return logits


_SUSPICIOUS_ACCURACY = 50.0
"""Percent; a teacher below it was probably trained on other pixel values."""


def _state(teacher: Net | Classifier | StoredLogits, train: Images, test: Images) -> dict[str, object]:
    if not isinstance(teacher, StoredLogits):
        return {"weights": teacher.state_dict()}
    state: dict[str, object] = {"logits": teacher.train, "images": train.fingerprint}
    if teacher.test is not None:
        state |= {"test_logits": teacher.test, "test_images": test.fingerprint}
    return state
