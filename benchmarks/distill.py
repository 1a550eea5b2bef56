"""Distillation: student updates per second.

    uv run python -m benchmarks.distill --data DIR

Stacked: five students (temperatures 1, 2, 4, 8, 20) distilled from one teacher, stacked in one process against one after
another, for 800, 300 and 30 units. Both sides are the code that `paperbench sweep distill --stacked` and
`paperbench train distill` run, from batch to update, with the log lines of the short schedule; a student update is one step of
one student.

Loader: one student in that loop against the loop that a user writes first: torchvision's MNIST, image by image from PIL to a
tensor, behind a DataLoader, the teacher's forward pass in every step, `kl_div`, Adam. The same nets, batch and precision; the
DataLoader with the number of workers that is fastest here of 0, 1 and 2. That the soft targets are computed once belongs to
what is compared; `same targets` gives the loader's side the stored ones as well.

Rounds of both sides are interleaved in one process; the first steps of each are not counted. Each number is the median over rounds,
a ratio the median of the ratios of neighbouring rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import Compose, ToDtype, ToImage

from benchmarks.common import machine, spread, write
from paperbench.config.compose import compose
from paperbench.config.validate import config_hash
from paperbench.data import mnist
from paperbench.data.image_sets import ImageSet
from paperbench.distill.config import Distill
from paperbench.distill.stacked import Students
from paperbench.distill.training import Data, Distillation, load
from paperbench.engine import device as devices
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import JsonLines, MetricLog
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.session import torch_settings
from paperbench.engine.signals import StopFlag
from paperbench.engine.stacked_trainer import fit_stacked
from paperbench.engine.trainer import Trainer

TEMPERATURES = (1, 2, 4, 8, 20)
WIDTHS = (800, 300, 30)
Rows = list[dict[str, Any]]


def configuration(root: Path, *overrides: str) -> tuple[Distill, dict[str, Any]]:
    """`paperbench train distill data=mnist ...`, as an object and as data."""
    composed = compose("distill", ["data=mnist", f"data.root={root}", *overrides])
    return composed.config, composed.resolved


# --- speed ------------------------------------------------------------------------------------------------------------


class Bench:
    """Students of one width on real images, with random teacher logits, which take no time to compute."""

    def __init__(self, args: argparse.Namespace, data: Data, folder: Path, width: int) -> None:
        self.args = args
        self.data = data
        self.folder = folder
        self.width = width
        self.device = data.train.pixels.device
        self._runs = 0
        self._opinion = (
            torch.randn(1, len(data.train), 10, generator=torch.Generator().manual_seed(0)).to(self.device) * 4
        )

    def trainer(self, temperature: float, steps: int) -> Trainer:
        """A trainer as the task makes it."""
        config, resolved = configuration(
            self.args.data,
            f"temperature={temperature}",
            f"model.width={self.width}",
            f"train.samples={steps * 256}",
            "train.evaluate_every=0",
            "train.checkpoint_every=1000000",
            "baseline.train=false",
            f"output.root={self.folder}",
        )
        self._runs += 1
        directory = RunDirectory.create(self.folder, "bench", resolved, self.folder / f"run-{self._runs}")
        run = Run(
            directory=directory,
            device=self.device,
            precision=self.args.precision,
            ranks=Ranks(),
            reporter=SilentReporter(),
            stop=StopFlag(),
            log=MetricLog([JsonLines(directory.metrics_file)]),
            checkpoints=CheckpointStore(directory.checkpoints),
            seed=0,
            config_hash=config_hash(resolved),
        )
        part = Distillation.of(config, run, self.data)
        part.teacher_logits = self._opinion
        trainer = part.trainer()
        trainer.evaluate = None
        return trainer

    def alone(self, steps: int) -> float:
        """Student updates per second, five students one after another."""
        seconds = 0.0
        for temperature in TEMPERATURES:
            trainer = self.trainer(temperature, steps)
            trainer.fit()
            seconds += trainer.order.batch_size * (steps - 1) / trainer.clock.rate()
        return len(TEMPERATURES) * (steps - 1) / seconds

    def stacked(self, steps: int) -> float:
        """The same, stacked."""
        trainers = [self.trainer(temperature, steps) for temperature in TEMPERATURES]
        for result in fit_stacked(trainers, lambda numbers: Students([trainers[n] for n in numbers])):
            if isinstance(result, Exception):
                raise result
        return len(TEMPERATURES) * trainers[0].clock.rate() / trainers[0].order.batch_size

    def one(self, steps: int) -> float:
        """Updates per second of a single student."""
        trainer = self.trainer(20, steps)
        trainer.fit()
        return trainer.clock.rate() / trainer.order.batch_size


def plain_mlp(width: int) -> nn.Sequential:
    """2 x width, as anybody would write it."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


class Loop:
    """The loop that a user writes first."""

    def __init__(self, args: argparse.Namespace, device: torch.device, width: int, *, workers: int) -> None:
        pictures = Pictures(mnist.load(args.data, "train"))
        self.loader = DataLoader(pictures, batch_size=256, shuffle=True, num_workers=workers, drop_last=True)
        self.device = device
        self.precision = args.precision
        self.student = plain_mlp(width).to(device)
        self.teacher = plain_mlp(1200).to(device).eval()
        self.optimizer = torch.optim.Adam(self.student.parameters(), lr=1e-3)
        self.stored = torch.randn(60_000, 10, device=device)

    def rate(self, steps: int, *, same_targets: bool) -> float:
        """Updates per second."""
        began, done = 0.0, -_UNCOUNTED
        while True:
            for images, labels, indices in self.loader:
                self._step(images.to(self.device), labels.to(self.device), indices if same_targets else None)
                done += 1
                if done == 0:
                    self._wait()
                    began = time.perf_counter()
                elif done == steps:
                    self._wait()
                    return steps / (time.perf_counter() - began)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _step(self, images: Tensor, labels: Tensor, indices: Tensor | None) -> None:
        with devices.autocast(self.device, self.precision):
            logits = self.student(images).float()
            with torch.no_grad():
                targets = self.teacher(images).float() if indices is None else self.stored[indices.to(self.device)]
        soft = F.kl_div(F.log_softmax(logits / 20, 1), F.softmax(targets / 20, 1), reduction="batchmean") * 400
        loss = soft + 0.1 * F.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


_UNCOUNTED = 5


class Pictures(Dataset[Any]):
    """What torchvision's MNIST does: an image out of the tensor of all of them, to PIL, to a float tensor; and its number, for
    targets that are stored. (torchvision itself wants the files unpacked.)"""

    def __init__(self, images: ImageSet) -> None:
        self.images = images
        self.transform = Compose([ToImage(), ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        picture = Image.fromarray(self.images.images[index].numpy())
        return self.transform(picture), int(self.images.labels[index]), index


def against(rounds: int, first: Callable[[], float], second: Callable[[], float]) -> dict[str, Any]:
    """Medians of both and of the ratios, `first` over `second`, of rounds that take turns."""
    pairs = [(first(), second()) for _ in range(rounds)]
    low, middle, high = spread([a / b for a, b in pairs])
    return {
        "ours": f"{median(a for a, _ in pairs):.1f}",
        "theirs": f"{median(b for _, b in pairs):.1f}",
        "ratio": f"{middle:.2f}",
        "ratio_min": f"{low:.2f}",
        "ratio_max": f"{high:.2f}",
    }


def speed(args: argparse.Namespace) -> None:
    """Writes `results/distill-<device>.csv`."""
    device = devices.resolve(args.device)
    args.precision = devices.resolve_precision(args.precision, device)
    facts = {**machine(str(device)), "precision": args.precision, "unit": "student updates per second, batch 256"}
    config, _ = configuration(args.data)
    rows: Rows = []

    def note(what: str, against_what: str, width: int, numbers: dict[str, Any]) -> None:
        rows.append({"what": what, "against": against_what, "units": width, **numbers, "rounds": args.rounds, **facts})
        print({key: rows[-1][key] for key in ("what", "against", "units", "ours", "theirs", "ratio")}, flush=True)
        write(f"distill-{device.type}", rows)

    with torch_settings(device, args.threads), tempfile.TemporaryDirectory() as folder:
        data = load(config, device)
        for width in args.widths:
            bench = Bench(args, data, Path(folder) / str(width), width)
            steps = args.steps * (4 if width < 100 else 1)
            numbers = against(args.rounds, lambda b=bench, n=steps: b.stacked(n), lambda b=bench, n=steps: b.alone(n))
            note("5 stacked students", "one after another", width, numbers)
            workers = fastest_workers(args, device, width)
            loop = Loop(args, device, width, workers=workers)
            for same in (False, True):
                numbers = against(
                    args.rounds,
                    lambda b=bench, n=steps: b.one(n),
                    lambda loop=loop, same=same: loop.rate(args.steps, same_targets=same),
                )
                name = f"DataLoader, {workers} workers" + (", same targets" if same else "")
                note("1 student", name, width, numbers)


def fastest_workers(args: argparse.Namespace, device: torch.device, width: int) -> int:
    """The number of loader processes that is fastest here."""
    rates = {n: Loop(args, device, width, workers=n).rate(args.steps, same_targets=False) for n in (0, 1, 2)}
    return max(rates, key=lambda n: rates[n])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds MNIST/raw")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice: all cores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150, help="of a round; four times as many of 30-unit students")
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS))
    speed(parser.parse_args())


if __name__ == "__main__":
    main()
