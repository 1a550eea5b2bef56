from __future__ import annotations

import torch

from paperbench.engine.counter_rng import normal, uniform


def test_a_number_belongs_to_its_sample_and_epoch_alone() -> None:
    samples, epochs = torch.tensor([5, 9, 5, 70_000]), torch.tensor([0, 0, 1, 3])
    drawn = uniform(17, samples, epochs, 6)
    for number in range(4):
        alone = uniform(17, samples[number : number + 1], epochs[number : number + 1], 6)
        assert torch.equal(alone[0], drawn[number])
    assert torch.equal(uniform(17, samples, epochs, 3), drawn[:, :3])
    assert len(set(drawn.flatten().tolist())) == drawn.numel()
    assert not torch.equal(uniform(18, samples, epochs, 6), drawn)


def test_the_stream_is_the_same_for_ever() -> None:
    """Recorded runs must resume: a change of these numbers changes every distortion."""
    drawn = uniform(3, torch.tensor([0, 1]), torch.tensor([0, 2]), 3)
    expected = torch.tensor(STREAM)
    assert torch.equal(drawn, expected), drawn.tolist()


STREAM = [
    [0.14563733339309692, 0.946918249130249, 0.3449860215187073],
    [0.6749861836433411, 0.8557183146476746, 0.1934008002281189],
]


def test_uniform_numbers_fill_the_unit_interval_independently() -> None:
    drawn = uniform(0, torch.arange(20_000), torch.zeros(20_000, dtype=torch.int64), 4)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.stack([torch.histc(column, 20, 0, 1) for column in drawn.t()])
    assert (counts - 1000).abs().max() < 5 * 1000**0.5
    correlations = torch.corrcoef(torch.cat([drawn.t(), drawn.roll(1, 0).t()])) - torch.eye(8)
    assert correlations.abs().max() < 0.03


def test_negative_and_huge_keys_are_keys() -> None:
    place = torch.tensor([1]), torch.tensor([0])
    values = {float(uniform(key, *place, 1)) for key in (-1, 0, 2**62, 2**63 - 1)}
    assert len(values) == 4


def test_normals() -> None:
    drawn = normal(uniform(1, torch.arange(20_000), torch.zeros(20_000, dtype=torch.int64), 4))
    assert drawn.shape == (20_000, 4)
    assert torch.isfinite(drawn).all()
    assert drawn.mean(0).abs().max() < 0.03
    assert (drawn.std(0) - 1).abs().max() < 0.02
    assert (torch.corrcoef(drawn.t()) - torch.eye(4)).abs().max() < 0.03
    assert abs(float((drawn.abs() < 1).float().mean()) - 0.6827) < 0.01


def test_the_normal_of_zero_is_finite() -> None:
    assert torch.isfinite(normal(torch.zeros(1, 2))).all()
