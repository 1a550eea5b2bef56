"""Labels are propagated by nearest neighbour, from one point or from the vote of several in a voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import generic_filter
from torch import Tensor

from paperbench.rca import propagation
from paperbench.rca.labels import Labels
from paperbench.rca.propagation import gather_labels, label_boundaries, nearest_index, propagate_labels, subvoxel_grid

TWO = Labels("values", (1, 2), ("one", "two"))


def affine(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    return F.affine_grid(matrix[None], [1, 1, *shape], align_corners=False)[0]


def identity(shape: tuple[int, ...]) -> Tensor:
    dims = len(shape)
    return affine(torch.eye(dims, dims + 1, dtype=torch.float64), shape)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """Voxels whose centre lies in a ball, in voxels."""
    places = np.stack(np.meshgrid(*[np.arange(length) + 0.5 for length in shape], indexing="ij"))
    return ((places - np.reshape(centre, (-1, *[1] * len(shape)))) ** 2).sum(0) < radius**2


@pytest.mark.parametrize("shape", [(6, 7), (5, 6, 7)])
def test_nearest_drawing_is_that_of_grid_sample(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 9, (2, *shape), generator=generator)
    grid = torch.rand(*shape, len(shape), generator=generator, dtype=torch.float64) * 2.4 - 1.2
    theirs = F.grid_sample(labels[None].double(), grid[None], mode="nearest", align_corners=False)[0].long()
    ours = gather_labels(labels, *nearest_index(grid, shape))
    torch.testing.assert_close(ours, theirs)
    assert set(ours.unique().tolist()) <= {0, *labels.unique().tolist()}


@pytest.mark.parametrize("shape", [(9, 8), (6, 7, 8)])
def test_the_identity_gives_the_same_map_with_any_number_of_points(shape: tuple[int, ...]) -> None:
    maps = torch.randint(0, 3, (2, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for samples in (1, 2, 3, 5):
        torch.testing.assert_close(propagate_labels(maps, identity(shape), labels=TWO, samples=samples), maps)


@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 4)])
def test_the_points_in_a_voxel_are_those_of_a_finer_grid(shape: tuple[int, ...]) -> None:
    dims = len(shape)
    matrix = torch.eye(dims, dims + 1, dtype=torch.float64) + 0.1 * torch.randn(
        dims, dims + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    fine = affine(matrix, tuple(3 * length for length in shape))
    found = subvoxel_grid(affine(matrix, shape), torch.ones(shape).nonzero(), 3)
    cells = fine
    for axis, length in enumerate(shape):
        cells = cells.unflatten(2 * axis, (length, 3))
    order = [*range(0, 2 * dims, 2), *range(1, 2 * dims, 2), 2 * dims]
    torch.testing.assert_close(found, cells.permute(order).reshape(-1, 3**dims, dims))


def test_a_vote_keeps_the_shape_of_a_small_ball_that_rounding_frays() -> None:
    shape = (20, 20, 20)
    label = torch.from_numpy(ball(shape, (10, 10, 10), 4.2).astype(np.uint8))[None]
    offset, turn = torch.tensor([0.5, -0.37, 0.31]).double() * 2 / 20, 0.5
    matrix = torch.eye(3, 4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix[:, 3] = offset
    middle = 10 - 10 * np.linalg.solve(matrix[:, :3].numpy(), offset.numpy())  # the last axis first
    truth = ball(shape, tuple(middle[::-1]), 4.2)

    def overlap(samples: int) -> float:
        drawn = propagate_labels(label, affine(matrix, shape), labels=TWO, samples=samples)[0].numpy() > 0
        return 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum())

    assert overlap(3) > overlap(1) + 0.02


def test_no_other_label_appears() -> None:
    shape = (12, 12, 12)
    labels = Labels("values", (2, 7, 200), ("a", "b", "c"))
    stream = torch.Generator().manual_seed(3)
    maps = torch.tensor([0, 2, 200], dtype=torch.uint8)[torch.randint(0, 3, (1, *shape), generator=stream)]
    grid = identity(shape) + 0.2 * torch.randn(*shape, 3, dtype=torch.float64, generator=stream)
    assert set(propagate_labels(maps, grid, labels=labels, samples=3).unique().tolist()) <= {0, 2, 200}


def test_a_label_that_bytes_cannot_hold_and_the_map_lacks_is_no_matter() -> None:
    labels = Labels("values", (1, 300), ("a", "b"))
    maps = torch.randint(0, 2, (1, 6, 6), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    drawn = propagate_labels(maps, identity((6, 6)), labels=labels, samples=3)
    torch.testing.assert_close(drawn, maps)


def test_voxels_are_sampled_in_chunks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (9, 10, 8)
    stream = torch.Generator().manual_seed(8)
    maps = torch.randint(0, 3, (2, *shape), generator=stream, dtype=torch.uint8)
    grid = identity(shape) * 0.8 + 0.05 * torch.randn(*shape, 3, dtype=torch.float64, generator=stream)
    whole = propagate_labels(maps, grid, labels=TWO, samples=3)
    monkeypatch.setattr(propagation, "CHUNK", 50)
    torch.testing.assert_close(propagate_labels(maps, grid, labels=TWO, samples=3), whole)


def test_one_map_or_several_at_once_give_the_same() -> None:
    shape = (14, 15)
    stream = torch.Generator().manual_seed(4)
    maps = torch.randint(0, 3, (3, *shape), generator=stream, dtype=torch.uint8)
    maps[1, 3:11, 3:12] = 1
    maps[2, ::2] = 0
    grid = identity(shape) * 0.9 + 0.03
    together = propagate_labels(maps, grid, labels=TWO, samples=3)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], propagate_labels(maps[k : k + 1], grid, labels=TWO, samples=3))


def test_a_volume_of_one_slice_is_sampled_in_its_plane() -> None:
    maps = torch.randint(0, 3, (1, 1, 8, 9), generator=torch.Generator().manual_seed(6), dtype=torch.uint8)
    torch.testing.assert_close(propagate_labels(maps, identity((1, 8, 9)), labels=TWO, samples=3), maps)


def test_label_boundaries_are_where_a_neighbourhood_holds_two_labels() -> None:
    maps = torch.randint(0, 2, (1, 8, 9, 7), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    maps[0, 2:7, 2:8, 1:6] = 1
    found = label_boundaries(maps)[0].numpy()
    spread = generic_filter(maps[0].numpy(), lambda cells: cells.max() - cells.min(), size=3, mode="nearest")
    assert np.array_equal(found, spread > 0)
    assert not found.all()


def test_a_vote_without_labels_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="samples=3"):
        propagate_labels(torch.zeros(1, 4, 4, dtype=torch.uint8), identity((4, 4)), samples=3)


# --- votes ------------------------------------------------------------------------------------------------------------


def test_the_label_with_most_votes_wins_and_background_wins_a_tie() -> None:
    maps = torch.tensor([[1, 1, 0, 2], [1, 2, 1, 2], [2, 0, 0, 1], [0, 0, 1, 0]])
    assert TWO.vote(maps).tolist() == [1, 0, 0, 2]
    assert TWO.vote(maps[:1]).tolist() == [1, 1, 0, 2]


def test_organs_that_overlap_are_voted_on_one_by_one() -> None:
    labels = Labels("bits", (1, 4), ("one", "two"))
    maps = torch.tensor([[5, 1, 4, 1], [5, 4, 4, 0], [1, 0, 0, 0]])
    assert labels.vote(maps).tolist() == [5, 0, 4, 0]
