"""Faster R-CNN: ours against torchvision's `FasterRCNN` in the training loop of its references.

    uv run python -m benchmarks.detection                                        # generated scenes
    uv run python -m benchmarks.detection --data-root DIR --weights FILE.pth     # and Penn-Fudan with SqueezeNet

Both sides get the same backbone, anchors, minibatches of anchors and regions, suppression limits, images (decoded before the
clock starts), batch and optimizer. Each side is a process of its own, set up as whoever uses it would find it, and they take
turns: while one works the others wait. torchvision's side is fed as its references feed it: a DataLoader over PIL images, its own
transform to tensors, random flips, `GeneralizedRCNNTransform`, the losses read back for logging after every step. Ours is the
trainer that `paperbench train` runs. `torchvision, our settings` is the same loop in a process with the settings that ours makes
for itself (`engine.device`: freed memory and compiled kernels are kept), to show what they contribute. `like for like` is float32
on both sides, `as shipped` is what the program chooses (bfloat16 where the processor has it). Neither side's first step is
counted; ours is timed by the trainer's own clock, which leaves out the log lines (every 20 steps) and the checkpoint at the end.
Each number is the median over rounds; a ratio is the median of the ratios of neighbouring rounds. Peak memory is that of the
process after all rounds of training and inference.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.transforms.v2 import functional as transforms

from benchmarks.common import machine, spread, write
from paperbench.config.compose import compose
from paperbench.data.detection import DetectionSet
from paperbench.detection import datasets
from paperbench.detection.backbones import BACKBONES, freeze
from paperbench.detection.batches import BatchMaker, side_multiple
from paperbench.detection.config import DetectTrain
from paperbench.detection.detectors.faster_rcnn import build_faster_rcnn
from paperbench.detection.evaluation.inference import per_image
from paperbench.detection.losses import fast_rcnn_loss
from paperbench.detection.model_config import FasterRCNNModel
from paperbench.detection.nms import postprocess
from paperbench.detection.roi_head import two_layer_head
from paperbench.detection.training.joint import parameter_groups, trainer
from paperbench.engine import device as devices
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metriclog import MetricLog
from paperbench.engine.optim import build_optimizer
from paperbench.engine.ranks import Ranks
from paperbench.engine.reporter import SilentReporter
from paperbench.engine.run import Run
from paperbench.engine.rundir import RunDirectory
from paperbench.engine.signals import StopFlag


def in_memory(dataset: DetectionSet) -> DetectionSet:
    """The same data set with all its images decoded already."""
    images = [dataset.decode(index) for index in range(len(dataset))]
    return replace(dataset, decode=images.__getitem__)


# --- torchvision's side -----------------------------------------------------------------------------------------------


class PilDataset(Dataset[Any]):
    """PIL images and targets with the references' transforms: to tensor, random flip, to float."""

    def __init__(self, dataset: DetectionSet, *, training: bool) -> None:
        self.images = [Image.fromarray(dataset.decode(index)) for index in range(len(dataset))]
        self.records = dataset.records
        self.training = training

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        record = self.records[index]
        keep = ~(record.difficult | record.crowd)
        boxes = torch.from_numpy(record.boxes[keep])
        image = transforms.pil_to_tensor(self.images[index])
        if self.training and torch.rand(()) < 0.5:
            image = transforms.horizontal_flip(image)
            boxes = (
                boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])
                + boxes.new_tensor([1, 0, 1, 0]) * record.width
            )
        target = {"boxes": boxes, "labels": torch.from_numpy(record.labels[keep])}
        return transforms.to_dtype(image, torch.float32, scale=True), target


def collate(batch: list[Any]) -> tuple[Any, ...]:
    """Lists of images and targets, as the references' `collate_fn`."""
    return tuple(zip(*batch, strict=True))


def faster_rcnn(config: DetectTrain) -> FasterRCNNModel:
    """The model's keys, of a configuration that is Faster R-CNN's."""
    assert isinstance(config.model, FasterRCNNModel), config.model.name
    return config.model


def torchvision_model(config: DetectTrain, classes: int) -> TorchvisionFasterRCNN:
    """torchvision's own detector with the sizes, thresholds and counts of `config`."""
    model = faster_rcnn(config)
    backbone = BACKBONES[model.backbone](model.weights)
    freeze(backbone, model.frozen_layers)
    features, channels = backbone.features, backbone.channels
    if model.projection:
        features = nn.Sequential(features, nn.Conv2d(channels, model.projection, 1), nn.ReLU(inplace=True))
        channels = model.projection
    features.out_channels = channels  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    pool = model.head.pool_size or backbone.pool_size
    return TorchvisionFasterRCNN(
        features,
        min_size=config.data.short_side,
        max_size=config.data.max_side,
        rpn_anchor_generator=AnchorGenerator((model.anchors.sizes,), (model.anchors.ratios,)),
        rpn_pre_nms_top_n_train=model.rpn.pre_nms_topk_train,
        rpn_pre_nms_top_n_test=model.rpn.pre_nms_topk_test,
        rpn_post_nms_top_n_train=model.rpn.post_nms_topk_train,
        rpn_post_nms_top_n_test=model.rpn.post_nms_topk_test,
        rpn_nms_thresh=model.rpn.nms_iou,
        rpn_fg_iou_thresh=model.rpn.positive_iou,
        rpn_bg_iou_thresh=model.rpn.negative_iou,
        rpn_batch_size_per_image=model.rpn.batch_size_per_image,
        rpn_positive_fraction=model.rpn.positive_fraction,
        box_roi_pool=MultiScaleRoIAlign(["0"], pool, 2),
        box_head=two_layer_head(
            in_channels=channels,
            pool_size=pool,
            hidden=model.head.hidden,
            batch_norm=model.head.batch_norm,
            dropout=model.head.dropout,
        ),
        box_predictor=FastRCNNPredictor(model.head.hidden, classes + 1),
        box_score_thresh=model.head.score_threshold,
        box_nms_thresh=model.head.nms_iou,
        box_detections_per_img=model.head.detections_per_image,
        box_batch_size_per_image=model.head.batch_size_per_image,
        box_positive_fraction=model.head.positive_fraction,
    )


class TorchvisionSide:
    """Training and inference as in torchvision's references/detection."""

    def __init__(
        self, config: DetectTrain, train: DetectionSet, test: DetectionSet, device: torch.device, workers: int
    ) -> None:
        self.config, self.device = config, device
        torch.manual_seed(0)
        self.model = torchvision_model(config, len(train.classes)).to(device)
        named = self.model.named_parameters()
        self.optimizer = build_optimizer(config.optim, [{"params": list(named), "lr_scale": 1.0}])
        options: dict[str, Any] = {"collate_fn": collate, "num_workers": workers, "persistent_workers": workers > 0}
        self.train_loader = DataLoader(
            PilDataset(train, training=True),
            batch_size=config.train.batch_size,
            shuffle=True,
            drop_last=True,
            **options,
        )
        self.test_loader = DataLoader(
            PilDataset(test, training=False), batch_size=config.evaluation.batch_size, **options
        )

    def train(self, steps: int) -> float:
        """Images per second over `steps` steps, after one that is not counted."""
        self.model.train()
        done, began = -1, time.perf_counter()
        while done < steps:
            for images, targets in self.train_loader:
                inputs = [image.to(self.device) for image in images]
                truths = [{key: value.to(self.device) for key, value in target.items()} for target in targets]
                losses = self.model(inputs, truths)
                loss = torch.stack(list(losses.values())).sum()
                {name: value.item() for name, value in losses.items()}  # the references log every step
                if not np.isfinite(loss.item()):
                    raise SystemExit("torchvision's loss is not finite")
                self.optimizer.zero_grad()
                loss.backward()
                if self.config.train.clip_norm:
                    nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip_norm)
                self.optimizer.step()
                done += 1
                if done == 0:
                    synchronise(self.device)
                    began = time.perf_counter()
                if done == steps:
                    break
        synchronise(self.device)
        return steps * self.config.train.batch_size / (time.perf_counter() - began)

    def infer(self) -> float:
        """Images per second from the loader to boxes on the host, after one batch that is not counted."""
        self.model.eval()
        count, began = 0, time.perf_counter()
        with torch.inference_mode():
            for position, (images, _) in enumerate(self.test_loader):
                found = self.model([image.to(self.device) for image in images])
                [{key: value.cpu() for key, value in entry.items()} for entry in found]
                if position == 0:
                    began = time.perf_counter()
                else:
                    count += len(images)
        return count / (time.perf_counter() - began)


# --- our side ---------------------------------------------------------------------------------------------------------


class OurSide:
    """The program's own trainer and detector."""

    def __init__(
        self,
        config: DetectTrain,
        train: DetectionSet,
        test: DetectionSet,
        device: torch.device,
        precision: str,
        scratch: Path,
    ) -> None:
        self.config, self.device, self.train_set, self.test_set = config, device, train, test
        self.precision = devices.resolve_precision(precision, device)
        self.scratch = scratch
        self.rounds = 0
        torch.manual_seed(0)
        self.model = build_faster_rcnn(faster_rcnn(config), classes=train.classes).to(device)
        self.make = self._maker(test, training=False)

    def _maker(self, dataset: DetectionSet, *, training: bool) -> BatchMaker:
        return BatchMaker(
            dataset,
            datasets.store(self.config.data, dataset, self.device),
            flip=self.config.data.flip if training else 0.0,
            seed=0,
            multiple=side_multiple(self.model.anchors.stride),
            training=training,
        )

    def train(self, steps: int) -> float:
        """Images per second over `steps` steps, after one that is not counted."""
        self.rounds += 1
        directory = RunDirectory.create(
            self.scratch, "benchmark", {}, run_dir=self.scratch / f"run-{id(self)}-{self.rounds}"
        )
        reporter = SilentReporter()
        run = Run(
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
        self.config.train.samples = (steps + 1) * self.config.train.batch_size
        self.config.train.checkpoint_every = steps + 1
        return trainer(self.config, self.model, self.train_set, run, None).fit()["train/samples_per_second"]

    def infer(self) -> float:
        """Images per second from the images in memory to boxes on the host, after one batch that is not counted."""
        self.model.eval()
        size, total = self.config.evaluation.batch_size, len(self.test_set)
        count, began = 0, time.perf_counter()
        for start in range(0, total, size):
            index = np.arange(start, min(start + size, total))
            with devices.autocast(self.device, self.precision), torch.inference_mode():
                batch = self.make(index, np.zeros_like(index))
                list(per_image(*self.model.detect(batch), batch))
            if start == 0:
                began = time.perf_counter()
            else:
                count += len(index)
        return count / (time.perf_counter() - began)

    def parts(self, steps: int) -> dict[str, float]:
        """Milliseconds a batch that each part of a training step and of inference takes, by the median."""
        clock = Parts(self.device)
        config, model = self.config, self.model
        make = self._maker(self.train_set, training=True)
        make(np.arange(len(self.train_set)), np.zeros(len(self.train_set), np.int64))  # decoded once, as in training
        optimizer = build_optimizer(config.optim, parameter_groups(model, backbone_lr_scale=1.0))
        stream = torch.Generator(device=self.device).manual_seed(0)
        rng = np.random.default_rng(0)
        for _ in range(steps):
            index = rng.choice(len(self.train_set), config.train.batch_size, replace=False)
            self._train_step(clock, make, index, optimizer, stream)
        model.eval()
        for start in range(0, min(steps, 25) * config.evaluation.batch_size, config.evaluation.batch_size):
            index = (np.arange(config.evaluation.batch_size) + start) % len(self.test_set)
            self._test_batch(clock, index)
        return {name: 1000 * median(times[1:]) for name, times in clock.times.items()}

    def _train_step(
        self, clock: Parts, make: BatchMaker, index: Any, optimizer: torch.optim.Optimizer, stream: torch.Generator
    ) -> None:
        model = self.model.train()
        with devices.autocast(self.device, self.precision):
            batch = clock("train/data", lambda: make(index, np.zeros_like(index)))
            features = clock("train/backbone", lambda: model.extract(batch))
            anchors = model.anchors(*features.shape[-2:])
            outputs = clock("train/rpn", lambda: model.rpn(features))
            rpn = clock(
                "train/rpn loss",
                lambda: model.rpn_loss(
                    *outputs,
                    anchors,
                    sizes=batch.sizes,
                    gt_boxes=batch.boxes,
                    gt_labels=batch.labels,
                    stride=model.anchors.stride,
                    generator=stream,
                ),
            )
            proposals = clock("train/proposals", lambda: model.regions_of_interest(batch, outputs, anchors))
            regions = clock("train/region sampling", lambda: model.sample_regions(batch, proposals, stream))
            scores, boxes = clock("train/roi head", lambda: model.classify(features, regions.boxes))
            head = fast_rcnn_loss(
                scores,
                boxes,
                regions.targets.flatten(0, 1),
                regions.labels.flatten(),
                regions.valid.flatten(),
                sigma=model.head_config.sigma,
            )
        clock("train/backward", lambda: torch.stack([*rpn, *head]).sum().backward())
        nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        clock("train/optimizer", optimizer.step)
        optimizer.zero_grad()

    def _test_batch(self, clock: Parts, index: Any) -> None:
        model = self.model
        with devices.autocast(self.device, self.precision), torch.inference_mode():
            batch = clock("inference/data", lambda: self.make(index, np.zeros_like(index)))
            features = clock("inference/backbone", lambda: model.extract(batch))
            anchors = model.anchors(*features.shape[-2:])
            outputs = clock("inference/rpn", lambda: model.rpn(features))
            proposals = clock("inference/proposals", lambda: model.regions_of_interest(batch, outputs, anchors))
            scores, boxes = clock("inference/roi head", lambda: model.classify(features, proposals.boxes))
            images = len(proposals.boxes)
            clock(
                "inference/post-processing",
                lambda: postprocess(
                    scores.view(images, -1, scores.shape[-1]),
                    boxes.view(images, -1, *boxes.shape[1:]),
                    proposals.boxes,
                    proposals.valid,
                    batch.sizes,
                    model.head_config,
                ),
            )


class Parts:
    """Times named pieces of work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: dict[str, list[float]] = defaultdict(list)

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        synchronise(self.device)
        began = time.perf_counter()
        result = work()
        synchronise(self.device)
        self.times[name].append(time.perf_counter() - began)
        return result


def synchronise(device: torch.device) -> None:
    """Waits for a GPU; a CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- the comparison ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """A data set and net to compare on."""

    name: str
    overrides: tuple[str, ...]


def workloads(data_root: Path | None, weights: Path | None) -> list[Workload]:
    """Generated scenes always; Penn-Fudan where its folder and SqueezeNet's weights are given."""
    found = [Workload("shapes, small, 160 px", ("data.train_images=400", "data.test_images=100"))]
    if data_root is not None:
        extra = (f"model.weights={weights}",) if weights is not None else ()
        overrides = ("data=pennfudan", f"data.root={data_root}", "model.backbone=squeezenet1_1", *extra)
        found.append(Workload("pennfudan, squeezenet1_1, 320 px", overrides))
    return found


VARIANTS = ("torchvision", "torchvision, our settings", "ours", "ours as shipped")


def side(variant: str, workload: Workload, device: torch.device, workers: int, scratch: Path) -> Any:
    """One of the contestants, with a configuration of its own."""
    config = compose("faster-rcnn", [*workload.overrides, f"device={device.type}"]).config
    train, test = (in_memory(datasets.load(config.data, split)) for split in ("train", "test"))
    if variant.startswith("torchvision"):
        return TorchvisionSide(config, train, test, device, workers)
    return OurSide(config, train, test, device, "float32" if variant == "ours" else "auto", scratch)


def peak_memory(device: torch.device) -> float:
    """Most memory in MiB that this process has held: of the GPU, on one, else of the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not ru_maxrss: that starts from what the parent process used.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Contestant:
    """A side in a process of its own, which does what it is asked and waits in between."""

    def __init__(self, variant: str, workload: Workload, arguments: argparse.Namespace, scratch: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        options = (theirs, variant, workload, arguments.device, arguments.workers, scratch)
        self._process = context.Process(target=serve, args=options, daemon=True)
        self._process.start()
        self.precision: str = self._answer()

    def ask(self, method: str, *arguments: Any) -> Any:
        """The value of a method of the side, or of `peak_memory`."""
        self._pipe.send((method, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit("a contestant's process ended; its error stands above") from None

    def close(self) -> None:
        """Ends the process."""
        self._pipe.send(None)
        self._process.join()


def serve(pipe: Any, variant: str, workload: Workload, device_name: str, workers: int, scratch: Path) -> None:
    """The loop of a contestant's process."""
    device = torch.device(device_name)
    if device.type == "cpu" and variant != "torchvision":
        devices.keep_freed_memory()
        devices.keep_compiled_kernels()
    contestant = side(variant, workload, device, workers, scratch)
    pipe.send(getattr(contestant, "precision", "float32"))
    while (request := pipe.recv()) is not None:
        method, arguments = request
        pipe.send(peak_memory(device) if method == "peak_memory" else getattr(contestant, method)(*arguments))


def compare(workload: Workload, arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """All rows of one workload."""
    rows: list[dict[str, Any]] = []

    def row(phase: str, variant: str, unit: str, values: list[float], ratios: list[float] | None = None) -> None:
        low, middle, high = spread(values)
        ratio = f"{median(ratios):.2f}" if ratios else ""
        rows.append(
            {
                "workload": workload.name,
                "phase": phase,
                "variant": variant,
                "precision": precisions[variant],
                "unit": unit,
                "median": f"{middle:.4g}",
                "min": f"{low:.4g}",
                "max": f"{high:.4g}",
                "ratio_to_torchvision": ratio,
                **machine(device.type),
            }
        )
        print(f"{workload.name:34} {phase:28} {variant:26} {middle:10.4g} {unit:9} {ratio}", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        sides = {name: Contestant(name, workload, arguments, Path(scratch)) for name in VARIANTS}
        precisions = {name: contestant.precision for name, contestant in sides.items()}
        for phase, question in (("train", ("train", arguments.steps)), ("inference", ("infer",))):
            rates: dict[str, list[float]] = defaultdict(list)
            for turn in range(arguments.rounds + 1):
                for name, contestant in sides.items():
                    rate = contestant.ask(*question)
                    if turn:  # the first round warms up
                        rates[name].append(rate)
            for name in VARIANTS:
                ratios = [ours / theirs for ours, theirs in zip(rates[name], rates["torchvision"], strict=True)]
                row(phase, name, "images/s", rates[name], ratios)
        used = {name: contestant.ask("peak_memory") for name, contestant in sides.items()}
        for name in VARIANTS[2:]:
            for part, milliseconds in sides[name].ask("parts", arguments.steps).items():
                row(part, name, "ms/batch", [milliseconds])
        for name in VARIANTS:
            row("peak memory", name, "MiB", [used[name]], [used[name] / used["torchvision"]])
        for contestant in sides.values():
            contestant.close()
    return rows


def main() -> None:
    """Runs every workload and writes `results/detection-<device>.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with PennFudanPed")
    parser.add_argument("--weights", type=Path, help="SqueezeNet's weights (torchvision squeezenet1_1)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--workers", type=int, default=0, help="of torchvision's DataLoader; the references' default is 4"
    )
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    rows = [
        row for work in workloads(arguments.data_root, arguments.weights) for row in compare(work, arguments, device)
    ]
    print(f"written to {write(f'detection-{device.type}', rows)}")


if __name__ == "__main__":
    main()
