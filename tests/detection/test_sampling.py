from __future__ import annotations

import torch

from paperbench.detection.sampling import sample


def labels_of(positives: int, negatives: int, ignored: int) -> torch.Tensor:
    labels = torch.tensor([1] * positives + [0] * negatives + [-1] * ignored)
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(labels: torch.Tensor, count: int, fraction: float, seed: int = 0) -> tuple[int, int, int]:
    found = sample(labels[None], count=count, positive_fraction=fraction, generator=generator(seed))
    index = found.chosen[found.valid]
    assert len(index.unique()) == len(index)
    picked = labels[index]
    return int((picked == 1).sum()), int((picked == 0).sum()), int((picked == -1).sum())


def test_positives_are_bounded_and_negatives_fill_up() -> None:
    assert drawn(labels_of(300, 2000, 100), 256, 0.5) == (128, 128, 0)
    assert drawn(labels_of(20, 2000, 100), 256, 0.5) == (20, 236, 0)
    assert drawn(labels_of(0, 2000, 100), 256, 0.5) == (0, 256, 0)


def test_too_few_to_fill_the_minibatch() -> None:
    assert drawn(labels_of(300, 10, 0), 256, 0.5) == (128, 10, 0)
    assert drawn(labels_of(3, 4, 50), 256, 0.5) == (3, 4, 0)
    assert drawn(labels_of(0, 0, 8), 4, 0.5) == (0, 0, 0)


def test_images_are_sampled_independently_of_each_other() -> None:
    labels = torch.stack([labels_of(50, 400, 50), labels_of(2, 498, 0)])
    found = sample(labels, count=64, positive_fraction=0.25, generator=generator(1))
    picked = labels.gather(1, found.chosen)
    assert (picked == 1).sum(1).tolist() == [16, 2]
    assert found.valid.all()


def test_equal_generators_draw_equal_minibatches_and_others_do_not() -> None:
    labels = labels_of(100, 900, 0)[None]
    first, again, other = (
        sample(labels, count=64, positive_fraction=0.5, generator=generator(seed)).chosen for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_positive_is_as_likely_as_any_other() -> None:
    labels = labels_of(8, 100, 0)
    counts = torch.zeros(len(labels))
    for seed in range(400):
        found = sample(labels[None], count=8, positive_fraction=0.5, generator=generator(seed))
        counts[found.chosen[0]] += 1
    share = counts[labels == 1] / 400
    assert share.min() > 0.38
    assert share.max() < 0.62
