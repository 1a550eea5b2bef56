"""Where the soft targets come from: teachers that are given, found or trained, and what they say about every image.

The logits of a teacher are computed once, kept in `<output.root>/nets/logits-<hash of weights and images>/` with their SHA-256,
and read from there by every run that has the same teacher and the same images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from paperbench.distill import given
from paperbench.distill.inputs import Images
from paperbench.distill.nets import Net
from paperbench.distill.scoring import logits_of, scores
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.run import Run
from paperbench.engine.store import StoreEntry, content_key
from paperbench.errors import CheckpointError


@dataclass(frozen=True)
class Opinion:
    """What one teacher says. train: (N, K), test: (Nt, K) or None for stored logits without them; float32, on the device."""

    train: Tensor
    test: Tensor | None


def opinion_of(net: Net, *, train: Images, test: Images, run: Run, folder: Path, batch_size: int) -> Opinion:
    """The logits of `net` for all images, from `folder` where they were computed before."""
    weights = [part for name, value in net.state_dict().items() for part in (name.encode(), value.cpu().numpy())]
    key = content_key(f"{train.fingerprint} {test.fingerprint} {run.device.type}", *weights)
    entry = StoreEntry(folder, key, prefix="logits-")
    kept = _kept(entry.path, train=train, test=test)
    if kept is None:
        kept = tuple(logits_of(net, images, batch_size=batch_size).cpu() for images in (train, test))
        _keep(entry, *kept, train=train, test=test)
    return Opinion(*(part.to(run.device) for part in kept))


def _kept(place: Path, *, train: Images, test: Images) -> tuple[Tensor, ...] | None:
    try:
        loaded = CheckpointStore(place, sweep=False).load()
    except CheckpointError:
        return None  # damaged: they are computed again
    if loaded is None:
        return None
    state, _ = loaded
    same = state.get("images") == train.fingerprint and state.get("test_images") == test.fingerprint
    return (state["logits"], state["test_logits"]) if same else None


def _keep(entry: StoreEntry, logits: Tensor, test_logits: Tensor, *, train: Images, test: Images) -> None:
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


class GivenTeacher:
    """A teacher that the configuration names. The run keeps a copy of what it learnt from."""

    def __init__(self, name: str, path: Path, run: Run, *, mean: float, std: float) -> None:
        self.name = name
        self.path = path
        self.metrics: dict[str, float] = {}
        self._run = run
        self._normalisation = {"mean": mean, "std": std}
        self._own = CheckpointStore(run.directory.checkpoints / name, run.reporter)

    def opinion(self, *, train: Images, test: Images, folder: Path, batch_size: int) -> Opinion:
        """What it says, and into `metrics` how often it errs on the test images."""
        loaded = self._own.load() if self._own.exists() else None
        source = self._own.directory if loaded is not None else self.path
        teacher = given.load(
            source, train=train, test=test, **(self._normalisation if loaded is None else {"mean": 0.0, "std": 1.0})
        )
        if loaded is None:
            self._own.save(_state(teacher, train, test), step=0)
        if isinstance(teacher, given.StoredLogits):
            device = self._run.device
            opinion = Opinion(teacher.train.to(device), None if teacher.test is None else teacher.test.to(device))
        else:
            net = teacher.to(self._run.device)
            opinion = opinion_of(net, train=train, test=test, run=self._run, folder=folder, batch_size=batch_size)
        if opinion.test is not None:
            self.metrics = scores(opinion.test, test.labels)
            if self.metrics["test/accuracy"] < _SUSPICIOUS * 100:
                self._run.reporter.message(
                    f"{self.name}: {self.path} is right about only {self.metrics['test/accuracy']:.1f} % of the test images; if "
                    "its training normalised pixels, say so with teacher_mean and teacher_std"
                )
        return opinion


_SUSPICIOUS = 0.5


def _state(teacher: Net | given.StoredLogits, train: Images, test: Images) -> dict[str, object]:
    if isinstance(teacher, Net):
        return {"weights": teacher.state_dict()}
    state: dict[str, object] = {"logits": teacher.train, "images": train.fingerprint}
    if teacher.test is not None:
        state |= {"test_logits": teacher.test, "test_images": test.fingerprint}
    return state
