"""From the `model` part of a digit configuration to its net, and to the parameter groups of the optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from paperbench.stn.config import CnnModel, DcnModel, FcnModel, StCnnModel, StFcnModel, TransformerNet
from paperbench.stn.deformable import DeformableFront
from paperbench.stn.distortions import SIDE
from paperbench.stn.grids import Affine, Attention, GridGenerator, Projective, Similarity
from paperbench.stn.localisation import convolutional, fully_connected
from paperbench.stn.networks import ConvolutionalNet, FrontedNet, FullyConnectedNet, Resized, TransformedNet
from paperbench.stn.parameters import count, nearest_width
from paperbench.stn.tps import ThinPlateSpline
from paperbench.stn.transformer import SpatialTransformer

Model = FcnModel | CnnModel | StFcnModel | StCnnModel | DcnModel
Net = FrontedNet | TransformedNet

GRIDS = {generator.name: generator for generator in (Affine, Attention, Similarity, Projective)}


def make_grid(transform: str, size: tuple[int, int], *, control_points: int = 4) -> GridGenerator:
    """The grid generator called `affine`, `attention`, `similarity`, `projective` or `tps`."""
    if transform == ThinPlateSpline.name:
        return ThinPlateSpline(size, control_points=control_points)
    return GRIDS[transform](size)


def build(model: Model, *, transform: str, canvas: int, channels: int = 1, classes: int = 10) -> Net:
    """The net of `model` for inputs of `channels` x `canvas` x `canvas`.

    Raises ConfigError when no width gives the wanted number of weights and ValueError when the input is too small for the net.
    """
    assembler = _Assembler(model, transform, canvas, channels, classes)
    return assembler.net(assembler.width())


def has_transformer(model: Any) -> bool:
    """Whether `transform` means anything to this model."""
    return isinstance(model, TransformerNet)


def parameter_groups(net: Net, *, localisation_lr: float = 1.0) -> Iterator[dict[str, Any]]:
    """Groups for `engine.optim.build_optimizer`: what predicts transformations or offsets, and the rest."""
    front = net.transformers if isinstance(net, TransformedNet) else net.front
    yield {"params": list(front.parameters()), "lr_scale": localisation_lr}
    yield {"params": list(net.classifier.parameters())}


class _Assembler:
    """A configured net at any width: filters of a CNN, units of an FCN, channels of DCN's offset net."""

    def __init__(self, model: Model, transform: str, canvas: int, channels: int, classes: int) -> None:
        self.model, self.transform = model, transform
        self.canvas, self.channels, self.classes = canvas, channels, classes

    def width(self) -> int:
        model = self.model
        if isinstance(model, DcnModel):
            if model.width:
                return model.width
            twin = StCnnModel(filters=model.filters, side=model.side)
            target = count(_Assembler(twin, "affine", self.canvas, self.channels, self.classes).net(model.filters))
            return nearest_width(self.net, target, what=f"model.width=0: ST-CNN has {target:,} weights")
        if model.parameters:
            return nearest_width(self.net, model.parameters, what=f"model.parameters={model.parameters}")
        return model.filters if isinstance(model, CnnModel | StCnnModel) else model.units

    def net(self, width: int) -> Net:
        model = self.model
        if isinstance(model, DcnModel):
            front = nn.Sequential(Resized(model.side), DeformableFront(self.channels, width=width))
            return FrontedNet(front, self._convolutional(model.side, self.channels, model.filters))
        if isinstance(model, TransformerNet):
            transformers = [self._transformer(model) for _ in range(model.transformers)]
            return TransformedNet(transformers, self._classifier(model.side, self.channels * model.transformers, width))
        side = model.side or self.canvas
        front = Resized(side) if side != self.canvas else nn.Identity()
        return FrontedNet(front, self._classifier(side, self.channels, width))

    def _classifier(self, side: int, channels: int, width: int) -> nn.Module:
        if isinstance(self.model, CnnModel | StCnnModel):
            return self._convolutional(side, channels, width)
        return FullyConnectedNet(channels=channels, side=side, units=width, classes=self.classes)

    def _convolutional(self, side: int, channels: int, filters: int) -> nn.Module:
        return ConvolutionalNet(channels=channels, side=side, filters=filters, classes=self.classes)

    def _transformer(self, model: StFcnModel | StCnnModel | TransformerNet) -> SpatialTransformer:
        look = convolutional if isinstance(model, StCnnModel) else fully_connected
        localisation, features = look(self.channels, self.canvas)
        # The paper pools after the transformer on its larger canvases. It does not say what it samples: half of 42 would be
        # too small for the classifier's convolutions, so it is the output that is sampled twice as finely.
        finer = 2 if model.antialias and self.canvas > SIDE else 1
        size = (model.side * finer, model.side * finer)
        return SpatialTransformer(
            localisation=localisation,
            features=features,
            grid=make_grid(self.transform, size, control_points=model.control_points),
            sampler=model.sampler,
            padding=model.padding,
            antialias=finer,
        )
