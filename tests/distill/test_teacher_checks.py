"""What answers to labelled images tell of a teacher's file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from paperbench.data import digits
from paperbench.distill.batches import Images
from paperbench.distill.nets import absorb_normalisation, mlp
from paperbench.distill.teacher_checks import are_probabilities, better_normalisation, fault_of_logits
from paperbench.distill.teachers import StoredLogits, load_teacher
from paperbench.errors import DataError

TRAIN, TEST = (Images.of(digits.load(split), torch.device("cpu")) for split in ("train", "test"))
CLASSES = TRAIN.classes


def logits(images: Images, wrong: float = 0.1, seed: int = 0) -> torch.Tensor:
    """Logits of a teacher that answers a share of the images wrongly."""
    rng = torch.Generator().manual_seed(seed)
    answers = torch.where(
        torch.rand(len(images), generator=rng) < wrong,
        torch.randint(0, 10, (len(images),), generator=rng),
        images.labels,
    )
    return torch.randn(len(images), 10, generator=rng) + 8 * torch.nn.functional.one_hot(answers, 10)


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.8])
def test_a_teacher_however_poor_is_no_fault_of_its_file(wrong: float) -> None:
    for images in (TRAIN, TEST):
        assert fault_of_logits(logits(images, wrong), images.labels, CLASSES) == ""
    in_order = torch.sort(TRAIN.labels, stable=True).indices
    assert fault_of_logits(logits(TRAIN, wrong)[in_order], TRAIN.labels[in_order], CLASSES) == ""


@pytest.mark.parametrize("change", ["shuffled", "by one", "reversed", "constant", "noise"])
def test_rows_in_another_order(change: str) -> None:
    given = logits(TRAIN)
    changed = {
        "shuffled": given[torch.randperm(len(given), generator=torch.Generator().manual_seed(1))],
        "by one": given.roll(1, 0),
        "reversed": given.flip(0),
        "constant": torch.zeros_like(given),
        "noise": torch.randn_like(given),
    }[change]
    assert "rows are in another order" in fault_of_logits(changed, TRAIN.labels, CLASSES)


def test_a_part_of_the_rows_in_another_order() -> None:
    changed = logits(TRAIN)
    changed[600:1000] = changed[600:1000].flip(0)
    assert "a part of its rows" in fault_of_logits(changed, TRAIN.labels, CLASSES)


@pytest.mark.parametrize("order", [[1, 2, 3, 4, 5, 6, 7, 8, 9, 0], [0, 1, 2, 3, 9, 5, 6, 7, 8, 4]])
def test_permuted_classes_are_found_and_the_way_back_is_named(order: list[int]) -> None:
    changed = logits(TRAIN)[:, order]
    said = fault_of_logits(changed, TRAIN.labels, CLASSES)
    assert "classes are in another order" in said
    back = eval(said.partition("logits[:, ")[2].rstrip("]") + "]")
    assert torch.equal(changed[:, back], logits(TRAIN))


def test_losses_in_place_of_logits() -> None:
    assert "store their negatives" in fault_of_logits(-logits(TRAIN).log_softmax(1), TRAIN.labels, CLASSES)


def test_probabilities_give_themselves_away_and_a_key_takes_them(tmp_path: Path) -> None:
    given = logits(TRAIN)
    assert not are_probabilities(given)
    for name, values in (
        ("p.npy", given.softmax(1)),
        ("half.npy", given.softmax(1).half()),
        ("percent.npy", 100 * given.softmax(1)),
        ("l.npy", given),
    ):
        np.save(tmp_path / name, values.numpy())
    common = {"train": TRAIN, "test": TEST, "mean": 0.0, "std": 1.0}
    for name in ("p.npy", "half.npy", "percent.npy"):
        with pytest.raises(DataError, match=r"probabilities and no logits.*teacher_values=probabilities"):
            load_teacher(tmp_path / name, **common)
    with pytest.raises(DataError, match="no probabilities"):
        load_teacher(tmp_path / "l.npy", values="probabilities", **common)
    for name in ("p.npy", "percent.npy"):
        found = load_teacher(tmp_path / name, values="probabilities", **common)
        assert isinstance(found, StoredLogits)
        torch.testing.assert_close(found.train.softmax(1), given.softmax(1), rtol=1e-4, atol=1e-6)


def test_the_normalisation_of_a_training_is_named() -> None:
    torch.manual_seed(0)
    net = mlp(inputs=784, classes=10, widths=[40])
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    pixels = next(TRAIN.batches(len(TRAIN)))
    for _ in range(40):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net((pixels - 0.1307) / 0.3081), TRAIN.labels).backward()
        optimiser.step()
    raw = {name: value.clone() for name, value in net.state_dict().items()}
    for images in ((TRAIN, TEST), (TRAIN.select(torch.arange(200)), TEST.select(torch.arange(100)))):
        net.load_state_dict(raw)
        said = better_normalisation(net, images, mean=0.0, std=1.0)
        assert "suit its training better" in said, said
        assert "teacher_mean=" in said
        absorb_normalisation(net, mean=0.1307, std=0.3081)
        assert better_normalisation(net, images, mean=0.1307, std=0.3081) == ""


def test_a_cautious_net_of_plain_pixels_gets_no_advice() -> None:
    torch.manual_seed(0)
    net = mlp(inputs=784, classes=10, widths=[40])
    optimiser = torch.optim.Adam(net.parameters(), 1e-2, weight_decay=1e-3)
    pixels = next(TRAIN.batches(len(TRAIN)))
    for _ in range(40):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(pixels), TRAIN.labels, label_smoothing=0.3).backward()
        optimiser.step()
    assert better_normalisation(net, (TRAIN, TEST), mean=0.0, std=1.0) == ""


def test_logits_of_all_images_where_only_the_first_are_used(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", logits(TRAIN).numpy())
    few = TRAIN.select(torch.arange(300))
    common = {"train": few, "test": TEST, "mean": 0.0, "std": 1.0}
    with pytest.raises(DataError, match="logits is 1437 x 10; 300 training images"):
        load_teacher(tmp_path / "l.npy", **common)
    found = load_teacher(tmp_path / "l.npy", cut=(300, 0), **common)
    assert isinstance(found, StoredLogits)
    torch.testing.assert_close(found.train, logits(TRAIN)[:300])
