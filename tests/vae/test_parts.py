"""Nets, objectives, pixels, figures: each by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from paperbench.catalog import TASKS
from paperbench.data.image_sets import ImageSet
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.vae import drawing
from paperbench.vae.config import BoundConfig
from paperbench.vae.data import Pixels, describe
from paperbench.vae.nets import ConvFeatures, ConvPixels, initialise
from paperbench.vae.objectives import Aevb, Mcem, Variational, WakeSleep, make_objective
from paperbench.vae.training import RepeatedOrder
from tests.vae.runs import configured


def objective(*overrides: str, experiment: str = "vae") -> Any:
    torch.manual_seed(0)
    return make_objective(configured(*overrides, experiment=experiment)[0], size=(28, 28), images=50)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(images: int = 6, height: int = 28, width: int = 28) -> ImageSet:
    values = torch.randint(0, 256, (images, height, width), generator=stream(), dtype=torch.uint8)
    return ImageSet(images=values, labels=torch.zeros(images, dtype=torch.int64), classes=("one",), name="random")


def pixels(binarisation: str = "grey", divisor: int = 255) -> Pixels:
    return Pixels(
        grey(),
        split="train",
        binarisation=binarisation,  # type: ignore[arg-type]
        divisor=divisor,
        device=torch.device("cpu"),
    )


def key(indices: list[int], epochs: list[int]) -> BatchKey:
    return BatchKey(0, np.array(indices), np.array(epochs))


# --- nets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(28, 28), (28, 20)])
def test_convolutions_keep_leading_axes_and_size(size: tuple[int, int]) -> None:
    encoder = ConvFeatures(size=size, channels=3, hidden=7, activation="relu")
    decoder = ConvPixels(size=size, channels=3, hidden=7, activation="relu")
    x = torch.rand(4, 5, size[0] * size[1])
    assert encoder(x).shape == (4, 5, 7)
    assert decoder(encoder(x)).shape == x.shape
    torch.testing.assert_close(encoder(x)[2, 3], encoder(x[2, 3][None])[0])


def test_convolutions_refuse_sides_that_two_strides_do_not_divide() -> None:
    with pytest.raises(ValueError, match="multiples of 4, not 30 x 28"):
        ConvFeatures(size=(30, 28), channels=2, hidden=3, activation="tanh")


def test_initial_weights_have_the_given_deviation() -> None:
    layer = nn.Linear(400, 300)
    torch.manual_seed(0)
    initialise(layer, 0.1)
    assert float(layer.weight.detach().std()) == pytest.approx(0.1, rel=0.02)
    assert float(layer.bias.detach().std()) == pytest.approx(0.1, rel=0.15)
    initialise(layer, None)
    assert float(layer.weight.detach().std()) == pytest.approx(400**-0.5, rel=0.02)
    assert not layer.bias.any()


# --- objectives -------------------------------------------------------------------------------------------------------


def test_beta_weighs_the_kl_alone() -> None:
    x, eps = torch.rand(5, 784), torch.randn(1, 5, 20)
    plain, weighed = objective(), objective("model.beta=4")
    weighed.load_state_dict(plain.state_dict())
    first, second = plain.losses(x, eps), weighed.losses(x, eps)
    torch.testing.assert_close(second["loss_kl"], 4 * first["loss_kl"])
    torch.testing.assert_close(second["loss_reconstruction"], first["loss_reconstruction"])
    with pytest.raises(ValueError, match="does not have by itself"):
        Aevb(plain.model, plain.encoder, BoundConfig(form="importance"), beta=2.0)


def test_wake_trains_the_model_and_sleep_the_encoder() -> None:
    whole = objective("estimator=wake-sleep")
    assert isinstance(whole, WakeSleep)
    losses = whole(torch.rand(5, 784), stream())
    losses["loss_wake"].backward(retain_graph=True)
    assert all(p.grad is None for p in whole.encoder.parameters())
    assert all(p.grad is not None for p in whole.model.parameters())
    whole.zero_grad()
    losses["loss_sleep"].backward()
    assert all(p.grad is not None for p in whole.encoder.parameters())
    assert all(p.grad is None for p in whole.model.parameters())


def test_training_raises_the_bound() -> None:
    learner = objective("model.latent=4")
    assert isinstance(learner, Variational)
    x = (torch.rand(20, 784, generator=stream()) < 0.3).float()
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    history = []
    for step in range(60):
        loss = torch.stack([*learner(x, stream(step)).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[0] == pytest.approx(784 * np.log(2), rel=0.1)
    assert history[-1] < 0.85 * history[0]


def test_checkpoints_that_call_the_encoder_guide_are_read() -> None:
    old = objective("model.latent=4")
    state = {name.replace("encoder.", "guide."): value for name, value in old.state_dict().items()}
    assert any(name.startswith("guide.") for name in state)
    new = objective("model.latent=4", "model.init_std=0.3")
    new.load_state_dict(state)
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in new.state_dict().items())


# --- Monte Carlo EM ---------------------------------------------------------------------------------------------------


def test_batches_are_repeated_for_every_update_of_a_sample() -> None:
    plain, repeated = EpochOrder(10, 4, 3), RepeatedOrder(10, 4, 3, times=5)
    for step in range(20):
        found = repeated.batch(step)
        assert found.step == step
        assert found.indices.tolist() == plain.batch(step // 5).indices.tolist()


def test_chains_move_once_for_every_sample_and_only_those_of_the_batch() -> None:
    learner = objective("estimator=mcem", "model.latent=2", "evaluation.marginal.images=1", "mcem.updates=3")
    assert isinstance(learner, Mcem)
    numbers, x = torch.tensor([4, 7]), torch.rand(2, 784)
    before = learner.chains.clone()
    learner((x, numbers, 3), stream(1))
    changed = (learner.chains != before).any(1).nonzero().flatten().tolist()
    assert set(changed) <= {4, 7}
    assert changed
    after, size = learner.chains.clone(), float(learner.step_size)
    learner((x, numbers, 4), stream(2))
    assert torch.equal(learner.chains, after)
    assert float(learner.step_size) == size != 0.05


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_grey_pixels_are_divided() -> None:
    raw = grey().images.flatten(1)[[2, 0]].float()
    torch.testing.assert_close(pixels().train_batch(key([2, 0], [0, 0]), seed=1), raw / 255)
    torch.testing.assert_close(pixels(divisor=256).train_batch(key([2, 0], [0, 0]), seed=1), raw / 256)
    torch.testing.assert_close(pixels().eval_batch(0, 1), raw[1:] / 255)


def test_static_pixels_are_one_draw_for_all_time() -> None:
    first, second = pixels("static"), pixels("static")
    x = first.train_batch(key([1, 3], [0, 0]), seed=1)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(x, second.train_batch(key([1, 3], [5, 9]), seed=2))
    assert torch.equal(x, second.eval_batch()[[1, 3]])


def test_dynamic_pixels_belong_to_seed_epoch_and_image() -> None:
    of = pixels("dynamic")
    x = of.train_batch(key([1, 3], [0, 0]), seed=1)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(x.flip(0), of.train_batch(key([3, 1], [0, 0]), seed=1))  # whatever it is drawn beside
    assert not torch.equal(x, of.train_batch(key([1, 3], [1, 1]), seed=1))
    assert not torch.equal(x, of.train_batch(key([1, 3], [0, 0]), seed=2))
    mean = torch.stack([of.train_batch(key([1], [epoch]), seed=1) for epoch in range(400)]).mean(0)
    torch.testing.assert_close(mean, pixels().eval_batch(1, 2), atol=0.12, rtol=0)
    assert torch.equal(of.eval_batch(), pixels("static").eval_batch())


def test_the_description_of_data_names_the_binarisation() -> None:
    texts = {kind: describe(configured()[0].data, kind) for kind in ("grey", "dynamic", "static")}
    assert len(set(texts.values())) == 3
    assert "value / 255" in texts["grey"]


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_manifold_is_spaced_by_the_inverse_normal_cdf() -> None:
    z = drawing.manifold_grid(4)
    quartiles = torch.tensor([-1.1503, -0.3186, 0.3186, 1.1503])
    torch.testing.assert_close(z[:4, 0], quartiles, atol=1e-4, rtol=0)
    torch.testing.assert_close(z[:4, 1], quartiles[:1].expand(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z[::4, 1], quartiles, atol=1e-4, rtol=0)


def test_interpolations_run_from_the_first_to_the_second() -> None:
    codes = torch.randn(4, 3, generator=stream())
    between = drawing.interpolate(codes, steps=5).view(2, 5, 3)
    torch.testing.assert_close(between[:, 0], codes[0::2])
    torch.testing.assert_close(between[:, -1], codes[1::2])
    torch.testing.assert_close(between[:, 2], (codes[0::2] + codes[1::2]) / 2)


def test_images_are_tiled_in_rows(tmp_path: Path) -> None:
    images = torch.arange(5).float()[:, None].expand(5, 6) / 4
    picture = drawing.tile_images(images, (2, 3), columns=3)
    assert picture.shape == (4, 9)
    assert picture[0].tolist() == [0] * 3 + [64] * 3 + [128] * 3
    assert picture[3].tolist() == [191] * 3 + [255] * 3 + [0] * 3
    with Image.open(drawing.save_image_grid(images, (2, 3), tmp_path / "grid.png", columns=3)) as saved:
        assert saved.size == (18, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_reconstructions_stand_below_their_originals() -> None:
    first, second = torch.zeros(3, 4), torch.ones(3, 4)
    rows = drawing.interleave_rows(first, second, columns=2)
    assert rows[:, 0].tolist() == [0, 0, 1, 1, 0, 0, 1, 0]  # the last row of each is filled with black


def test_every_task_declares_binarisation_as_a_convention() -> None:
    names = [name for name in TASKS if name.startswith("vae-")]
    assert {"vae-train", "vae-eval", "vae-semi"} <= set(names)
    assert all("binarisation" in TASKS[name].conventions for name in names)
