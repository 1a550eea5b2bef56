"""`paperbench export`: both halves of a trained auto-encoder in a file that other programs read.

One file holds the encoder, from images to latent variables, and the decoder, from any latent variables to the expected images. They
share no input, so that a program that wants one of them gives the other anything.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from paperbench.engine.exportable import Exportable, Output
from paperbench.vae import data
from paperbench.vae.config import VaeTrain
from paperbench.vae.drawing import decode
from paperbench.vae.objectives import AutoEncoder, Mcem, Objective, Variational
from paperbench.vae.training import load_objective

EXAMPLES = ((4, 5), (3, 2))
"""Test images and draws of the latent variables in each pair of batches that the file is compared on."""

TOLERANCE = 1e-3
"""Of latent variables, whose prior has a standard deviation of 1, and of pixels in 0..1."""


class Codec(nn.Module):
    """An objective as a function of images (N, C, H, W) and latent variables (S, L), or of the latter alone without an encoder."""

    def __init__(self, objective: Objective, *, size: tuple[int, ...]) -> None:
        super().__init__()
        self.objective = objective
        self.size = size

    def decode(self, z: Tensor) -> Tensor:
        """Return images (S, C, H, W) in 0..1 of latent variables (S, L)."""
        return decode(self.objective, z).unflatten(-1, _with_channels(self.size))


class DecoderOnly(Codec):
    """The codec of Monte Carlo EM, which has no encoder."""

    def forward(self, latents: Tensor) -> tuple[Tensor]:
        return (self.decode(latents),)


class PlainCodec(Codec):
    """The codec of a plain autoencoder: codes of the images, their reconstructions, and the images of other codes."""

    def forward(self, images: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.objective, AutoEncoder)
        codes = self.objective.encode(images.flatten(1))
        return codes, self.decode(codes), self.decode(latents)


class VariationalCodec(Codec):
    """The codec of a VAE: mean and log-variance of q(z | x), reconstructions at the mean, and the images of other z."""

    def forward(self, images: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert isinstance(self.objective, Variational)
        posterior = self.objective.encoder.posterior(images.flatten(1))
        return posterior.mean, posterior.log_variance, self.decode(posterior.mean), self.decode(latents)


def export_model(config: VaeTrain, run_dir: Path) -> Exportable:
    """Return the model of a run: images as it was trained on -> q(z | x) and reconstructions; latent variables -> images.

    Raises ConfigError for a run without a checkpoint, CheckpointError for one that is damaged, and DataError when the data
    set of the examples is missing.
    """
    device = torch.device("cpu")
    test = data.load(config.data, "test", binarisation=config.binarisation, device=device)
    objective, step = load_objective(config, run_dir, size=test.size, device=device)
    latent, (channels, height, width) = config.model.latent, _with_channels(test.size)
    images = f"(N, {channels}, {height}, {width}) float32 from 0 to 1, {_pixels(config)}"
    latents = f"(S, {latent}) float32"
    examples = [
        (test.eval_batch(0, count).unflatten(-1, _with_channels(test.size)), _draws(draws, latent))
        for count, draws in EXAMPLES
    ]
    metadata = {"binarisation": config.binarisation, "latent": str(latent)}
    decoded = Output(
        name="decoded", meaning=f"(S, {channels}, {height}, {width}) images expected of `latents`", tolerance=TOLERANCE
    )
    if isinstance(objective, Mcem):
        return Exportable(
            module=DecoderOnly(objective, size=test.size).eval().requires_grad_(False),
            weights="objective.model",  # not the chains, one for each training image
            inputs=[(z,) for _, z in examples],
            input_names=("latents",),
            outputs=(decoded,),
            meaning=f"latents: {latents}",
            step=step,
            dynamic={"latents": {0: "draws"}},
            metadata=metadata,
        )
    plain = isinstance(objective, AutoEncoder)
    codec = (PlainCodec if plain else VariationalCodec)(objective, size=test.size)
    return Exportable(
        module=codec.eval().requires_grad_(False),
        weights="objective",
        inputs=examples,
        input_names=("images", "latents"),
        outputs=(*_encoded(latent, plain=plain), _reconstructed(test.size), decoded),
        meaning=f"images: {images}; latents: {latents}, any",
        step=step,
        dynamic={"images": {0: "batch"}, "latents": {0: "draws"}},
        metadata=metadata,
    )


def _pixels(config: VaeTrain) -> str:
    if config.binarisation != "grey":
        return "every pixel 0 or 1"
    return f"bytes divided by {data.divisor(config.data)}"


def _draws(count: int, latent: int) -> Tensor:
    """Draw from the prior, the same for every export."""
    return torch.randn((count, latent), generator=torch.Generator().manual_seed(0))


def _encoded(latent: int, *, plain: bool) -> tuple[Output, ...]:
    if plain:
        return (Output(name="codes", meaning=f"(N, {latent}) of `images`", tolerance=TOLERANCE),)
    return (
        Output(name="mean", meaning=f"(N, {latent}) of q(z | x)", tolerance=TOLERANCE),
        Output(name="log_variance", meaning=f"(N, {latent}) of q(z | x)", tolerance=TOLERANCE),
    )


def _reconstructed(size: tuple[int, ...]) -> Output:
    shape = ", ".join(map(str, _with_channels(size)))
    return Output(name="reconstructions", meaning=f"(N, {shape}) of `images`", tolerance=TOLERANCE)


def _with_channels(size: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (C, H, W) of (H, W), or of itself."""
    channels = size[0] if len(size) == 3 else 1
    return channels, size[-2], size[-1]
