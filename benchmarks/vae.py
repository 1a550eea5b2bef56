"""Variational auto-encoders: training against the loop of a plain script, likelihoods against a loop over images, and bounds.

    uv run python -m benchmarks.vae speed --data-root DIR        # -> results/vae-speed-<device>.csv
    uv run python -m benchmarks.vae likelihood --data-root DIR   # -> results/vae-likelihood-<device>.csv
    uv run python -m benchmarks.vae bounds --data-root DIR       # -> results/vae-bounds-10M.csv
    uv run python -m benchmarks.vae bounds --data-root DIR --samples 1000000 --estimators aevb,wake-sleep   # -> …-1M.csv

`speed`: the loop is that of the example that comes with PyTorch: `torchvision.datasets.MNIST` through a `DataLoader` that turns
PIL images into tensors, `binary_cross_entropy` and the KL term summed over the batch, the loss read back in every step. All
sides have the paper's net (500 tanh units, 20 latent dimensions), Adagrad and batches of 100. `ours, float32` is like for like;
the others are in the type that the program chooses (bfloat16 where the processor has it), and `compiled` with the losses through
torch.compile, as in every long run. `4 stacked` counts the samples of all four models. Sides take turns; each number is
the median over rounds, `ratio` the median of the ratios of neighbouring rounds, and `ratio_of_best` that of the fastest rounds,
which is less disturbed where others use the machine as well. No side's first step, in which it is compiled, is counted; ours is
the rate that the trainer reports.

`likelihood`: log p(x) by importance sampling, on a model after a short training. The loop takes one image at a time and decodes
all of its samples at once, in plain PyTorch.

`bounds`: runs of `paperbench sweep vae --stacked`, compared with figure 2 of the paper. An interrupted call continues when it is
repeated.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.common import machine, spread, write
from paperbench.config.compose import compose
from paperbench.engine import device as devices
from paperbench.engine import metriclog
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import MetricLog
from paperbench.engine.onednn import fast_products
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.session import torch_settings
from paperbench.engine.signals import StopFlag
from paperbench.engine.stacked_trainer import fit_stacked
from paperbench.report import published
from paperbench.vae.config import VaeTrain
from paperbench.vae.data import Pixels
from paperbench.vae.likelihood import importance_sampled_likelihood
from paperbench.vae.model import Encoder, Generative
from paperbench.vae.objectives import Aevb
from paperbench.vae.stacked import StackedObjective
from paperbench.vae.training import Training, load_data

BATCH = 100
LATENTS = (3, 5, 10, 20, 200)

# --- the plain script -------------------------------------------------------------------------------------------------


class PlainVae(nn.Module):
    """The paper's model as a script writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(784, 500)
        self.mean = nn.Linear(500, 20)
        self.log_variance = nn.Linear(500, 20)
        self.expand = nn.Linear(20, 500)
        self.decode = nn.Linear(500, 784)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.tanh(self.encode(x.view(-1, 784)))
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return torch.sigmoid(self.decode(torch.tanh(self.expand(z)))), mean, log_variance


class Loop:
    """The script's training loop, over MNIST as torchvision reads it."""

    def __init__(self, root: Path, device: torch.device) -> None:
        self.device = device
        self.model = PlainVae().to(device)
        self.optimizer = torch.optim.Adagrad(self.model.parameters(), lr=0.02)
        images = datasets.MNIST(str(root), train=True, transform=transforms.ToTensor())
        self.loader = DataLoader(images, batch_size=BATCH, shuffle=True, drop_last=True)

    def train(self, steps: int) -> float:
        """Measure samples per second over `steps` steps, after one that is not counted."""
        self.model.train()
        done, total, began = -1, 0.0, time.perf_counter()
        while done < steps:
            for x, _ in self.loader:
                x = x.to(self.device)
                self.optimizer.zero_grad()
                reconstruction, mean, log_variance = self.model(x)
                cross_entropy = F.binary_cross_entropy(reconstruction, x.view(-1, 784), reduction="sum")
                kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
                loss = cross_entropy + kl
                loss.backward()
                total += loss.item()
                self.optimizer.step()
                done += 1
                if done == 0:
                    began = time.perf_counter()
                if done == steps:
                    break
        if not math.isfinite(total):
            raise SystemExit("the plain loop's loss is not finite")
        return steps * BATCH / (time.perf_counter() - began)


def unpack(data_root: Path, scratch: Path) -> Path:
    """Unpack MNIST's files for torchvision, and return their folder."""
    target = scratch / "MNIST" / "raw"
    target.mkdir(parents=True)
    for file in (data_root / "MNIST" / "raw").iterdir():
        if file.suffix == ".gz":
            with gzip.open(file) as packed, (target / file.stem).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        elif not (target / file.name).exists():
            shutil.copy(file, target / file.name)
    return scratch


# --- ours -------------------------------------------------------------------------------------------------------------


class Ours:
    """The program's own trainer, for one model or several stacked ones."""

    def __init__(
        self,
        config: VaeTrain,
        images: tuple[Pixels, Pixels],
        device: torch.device,
        scratch: Path,
        *,
        precision: str = "auto",
        models: int = 1,
    ) -> None:
        self.config, self.images, self.device, self.scratch = config, images, device, scratch
        self.precision = devices.resolve_precision(precision, device)
        self.models = models
        self.rounds = 0

    def train(self, steps: int) -> float:
        """Measure samples per second, of all models together, over `steps` steps after one that is not counted."""
        self.rounds += 1
        self.config.train.samples = (steps + 1) * BATCH
        self.config.train.checkpoint_every = steps + 2
        parts = [Training.build(self.config, self._run(number), *self.images) for number in range(self.models)]
        for part in parts:
            part.trainer.evaluate = None
        if self.models == 1:
            parts[0].compile(parts[0].objective)
            return parts[0].trainer.fit()["train/samples_per_second"]
        results = fit_stacked([p.trainer for p in parts], lambda numbers: StackedObjective([parts[n] for n in numbers]))
        return sum(result["train/samples_per_second"] for result in results if isinstance(result, dict))

    def _run(self, number: int) -> Run:
        name = f"{self.models}-{self.precision}-{self.config.compile}-{self.rounds}-{number}"
        directory = RunDirectory.create(self.scratch, "benchmark", {}, run_dir=self.scratch / name)
        reporter = SilentReporter()
        return Run(
            directory=directory,
            device=self.device,
            precision=self.precision,
            ranks=Ranks(),
            reporter=reporter,
            stop=StopFlag(),
            log=MetricLog([]),
            checkpoints=CheckpointStore(directory.checkpoints, reporter),
            seed=self.rounds,
            config_hash="benchmark",
        )


def configured(arguments: argparse.Namespace, *overrides: str) -> VaeTrain:
    """Compose the paper's settings on MNIST, at one of its rates."""
    root = f"data.root={arguments.data_root}"
    common = ("scale=paper", "data=mnist", root, f"device={arguments.device}")
    if not any(override.startswith("optim.lr=") for override in overrides):
        common = (*common, "optim.lr=0.02")
    return compose("vae", [*common, *overrides]).config


# --- training speed ---------------------------------------------------------------------------------------------------


def speed(arguments: argparse.Namespace) -> None:
    """Measure the training speed of all sides in turns."""
    device = devices.resolve(arguments.device)
    with tempfile.TemporaryDirectory() as folder, torch_settings(device, arguments.threads):
        scratch = Path(folder)
        images = load_data(configured(arguments), device)
        root = unpack(arguments.data_root, scratch / "torchvision")
        sides: dict[str, Any] = {"DataLoader loop": Loop(root, device)}
        eager, compiled = configured(arguments, "compile=off"), configured(arguments, "compile=on")
        sides["ours, float32"] = Ours(eager, images, device, scratch, precision="float32")
        sides["ours"] = Ours(eager, images, device, scratch)
        sides["ours, compiled"] = Ours(compiled, images, device, scratch)
        sides["ours, 4 stacked"] = Ours(eager, images, device, scratch, models=4)
        sides["ours, 4 stacked, compiled"] = Ours(compiled, images, device, scratch, models=4)
        rates: dict[str, list[float]] = defaultdict(list)
        for turn in range(arguments.rounds + 1):
            for name, side in sides.items():
                rate = side.train(arguments.steps)
                if turn:  # the first round warms up
                    rates[name].append(rate)
        rows = [
            _row(device, "training", name, getattr(side, "precision", "float32"), "samples/s", rates, sides)
            for name, side in sides.items()
        ]
    print(write(f"vae-speed-{device.type}", rows))


def _row(
    device: torch.device,
    what: str,
    name: str,
    precision: str,
    unit: str,
    rates: dict[str, list[float]],
    sides: dict[str, Any],
) -> dict[str, Any]:
    """Return a row of the table; the ratio is to the first side."""
    first = next(iter(sides))
    low, middle, high = spread(rates[name])
    ratio = median(a / b for a, b in zip(rates[name], rates[first], strict=True))
    best = high / max(rates[first])
    print(f"{what:10} {name:26} {middle:10.4g} {unit:10} {ratio:6.2f} {best:6.2f}", flush=True)
    return {
        "what": what,
        "variant": name,
        "binarisation": "grey",
        "precision": precision,
        "unit": unit,
        "median": f"{middle:.4g}",
        "min": f"{low:.4g}",
        "max": f"{high:.4g}",
        "ratio": f"{ratio:.2f}",
        "ratio_of_best": f"{best:.2f}",
        **machine(device.type),
    }


# --- likelihoods ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def loop_over_images(model: Generative, encoder: Encoder, x: Tensor, samples: int, stream: torch.Generator) -> Tensor:
    """Estimate log p(x) of one image after the other."""
    found = []
    for image in x:
        posterior = encoder.posterior(image[None])
        z = posterior.sample(torch.randn((samples, 1, encoder.latent), generator=stream, device=x.device))
        log_weight = model.log_joint(image[None], z) - posterior.log_prob(z)
        found.append(torch.logsumexp(log_weight, 0) - math.log(samples))
    return torch.cat(found)


def likelihood(arguments: argparse.Namespace) -> None:
    """Measure ours on all test images once, and both sides on some of them in turns."""
    device = devices.resolve(arguments.device)
    with tempfile.TemporaryDirectory() as folder, torch_settings(device, arguments.threads):
        config = configured(arguments, "optim.name=adamw", "optim.lr=1e-3", "prior=false", "train.samples=200000")
        images = load_data(config, device)
        ours = Ours(config, images, device, Path(folder))
        part = Training.build(config, ours._run(0), *images)
        part.trainer.evaluate = None
        part.trainer.fit()
        objective = part.objective.eval()
        assert isinstance(objective, Aevb)
        x = images[1].eval_batch(0, arguments.images)
        some = x[: max(1, len(x) // 20)]
        rates: dict[str, list[float]] = defaultdict(list)
        means: dict[str, float] = {}

        def timed(name: str, work: Callable[[], Tensor]) -> None:
            began = time.perf_counter()
            values = work()
            means[name] = float(values.mean())
            rates[name].append(len(values) / (time.perf_counter() - began))

        def stream() -> torch.Generator:
            return torch.Generator(device=device).manual_seed(0)

        def batched(of: Tensor) -> Tensor:
            with fast_products(device):
                model, encoder = objective.model, objective.encoder
                return importance_sampled_likelihood(
                    model, encoder, of, samples=arguments.importance, stream=stream()
                ).log_likelihood

        def looped() -> Tensor:
            return loop_over_images(objective.model, objective.encoder, some, arguments.importance, stream())

        for warm_up in (looped, lambda: batched(some)):
            warm_up()
        for _ in range(arguments.rounds):
            timed("loop over images", looped)
            timed("ours, some images", lambda: batched(some))
        rates["ours"] = []
        timed("ours", lambda: batched(x))
        rates["ours"] *= arguments.rounds
        sides = {"loop over images": None, "ours, some images": None, "ours": None}
        rows = [
            {
                **_row(device, "likelihood", name, "float32", "images/s", rates, sides),
                "images": len(x) if name == "ours" else len(some),
                "samples": arguments.importance,
                "mean_log_likelihood": f"{means[name]:.3f}",
            }
            for name in sides
        ]
    print(write(f"vae-likelihood-{device.type}", rows))


# --- bounds -----------------------------------------------------------------------------------------------------------


def bounds(arguments: argparse.Namespace) -> None:
    """Train what is not trained yet, and compare every curve with figure 2."""
    marks = [count for count in (1_000_000, 3_200_000, 10_000_000) if count <= arguments.samples]
    wanted = [
        f"model.latent={','.join(map(str, arguments.latents))}", f"estimator={','.join(arguments.estimators)}",
        f"scale={arguments.scale}", "data=mnist", f"data.root={arguments.data_root}", f"train.samples={arguments.samples}",
        f"evaluation.at_samples=[{','.join(str(count) for count in marks if count < arguments.samples)}]",
        "evaluation.importance_samples=0", f"device={arguments.device}", f"output.root={arguments.output}",
    ]  # fmt: skip
    given = {override.partition("=")[0] for override in arguments.overrides}
    chosen = [*(text for text in wanted if text.partition("=")[0] not in given), *arguments.overrides]
    command = [sys.executable, "-m", "paperbench", "sweep", "vae", "--stacked", "--json", *chosen]
    print(" ".join(command), flush=True)
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    rows = [row for entry in found["runs"] for row in _points(Path(entry["directory"]), marks)]
    for row in rows:
        print(
            f"{row['estimator']:10} {row['latent']:>3} {row['samples']:>10} {row['test_bound']:>8} {row['published']:>8}"
        )
    print(write(f"vae-bounds-{arguments.samples // 1_000_000}M", rows))


def _points(directory: Path, marks: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each number of samples seen: the bound and the published one."""
    run = RunDirectory.open(directory)
    config, results, environment = run.config(), run.results() or {}, run.environment()
    records = {record["step"]: record for record in metriclog.read(run.metrics_file)}
    latent, estimator = config["model"]["latent"], config["estimator"]
    row = f"MNIST, {latent} latent, {'AEVB' if estimator == 'aevb' else estimator}, test"
    rows = []
    for count in marks:
        value = records[-(-count // config["train"]["batch_size"])]["test/bound"]
        paper = published.find("vae", "Figure 2", row, count).value
        rows.append(
            {
                "estimator": estimator,
                "latent": latent,
                "samples": count,
                "test_bound": f"{value:.2f}",
                "published": f"{paper:.1f}",
                "above": f"{value - paper:.2f}",
                "binarisation": config["binarisation"],
                "optimizer": f"{config['optim']['name']} {results['metrics'].get('rates/chosen', config['optim']['lr']):g}",
                "init_std": config["model"]["init_std"] or "1 / sqrt(fan-in)",
                "seed": config["seed"],
                "precision": results["precision"],
                "seconds": results["seconds"],
                "side_by_side": results.get("stacked", 1),
                **machine(results["device"]),
                "threads": environment["threads"],
                "date": environment["started"][:10],
            }
        )
    return rows


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(name: str, function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name)
        sub.set_defaults(function=function)
        sub.add_argument("--data-root", type=Path, required=True)
        sub.add_argument("--device", default="cpu")
        sub.add_argument("--threads", type=int, default=0)
        sub.add_argument("--rounds", type=int, default=5)
        return sub

    command("speed", speed).add_argument("--steps", type=int, default=300)
    images = command("likelihood", likelihood)
    images.add_argument("--images", type=int, default=10_000)
    images.add_argument("--importance", type=int, default=1000)
    curves = command("bounds", bounds)
    curves.add_argument("--samples", type=int, default=10_000_000)
    curves.add_argument("--latents", type=lambda text: [int(part) for part in text.split(",")], default=list(LATENTS))
    curves.add_argument("--estimators", type=lambda text: text.split(","), default=["aevb"])
    curves.add_argument("--scale", default="short")
    curves.add_argument("--output", type=Path, default=Path("outputs"))
    curves.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
