from __future__ import annotations

import numpy as np
import pytest
import torch

from paperbench.data.image_store import ImageStore
from paperbench.detection.batches import Batch, BatchMaker, ProposalBatchMaker, coin, side_multiple
from tests.data.sets import in_memory, record

CPU = torch.device("cpu")
PINNED = [0.13828117562951103, 0.2954078695812087, 0.6272372621742347]

UNIFORM = [record(k, 20, 28, [[2, 3, 10 + k, 12], [5, 5, 28, 20]][: k % 3]) for k in range(8)]
RAGGED = [record(k, 20 + 3 * k, 28 + 5 * (k % 3), [[2, 3, 10 + k, 12], [5, 5, 28, 20]][: k % 3]) for k in range(8)]


def maker(records=RAGGED, *, flip: float = 0.5, seed: int = 0, multiple: int = 8, training: bool = True, **sides: int):
    dataset, _ = in_memory(*records)
    store = ImageStore(
        dataset, short_side=sides.get("short", 24), max_side=sides.get("long", 64), device=CPU, cache_mb=16
    )
    return BatchMaker(dataset, store, flip=flip, seed=seed, multiple=multiple, training=training), store, dataset


def call(make: BatchMaker, indices: list[int], epoch: int = 0) -> Batch:
    return make(np.array(indices), np.full(len(indices), epoch))


@pytest.mark.parametrize("records", [UNIFORM, RAGGED])
@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
def test_each_image_by_hand(records, flip: float) -> None:
    """Against the plainest way to write it: one image after the other."""
    make, store, dataset = maker(records, flip=flip)
    indices = [5, 2, 2, 0, 7, 1]
    batch = call(make, indices, epoch=3)
    mirrored = coin(0, np.full(6, 3), np.array(indices)) < flip
    height, width = batch.images.shape[2:]
    assert height == -(-max(store.size(i)[0] for i in indices) // 8) * 8
    assert width == -(-max(store.size(i)[1] for i in indices) // 8) * 8
    assert batch.boxes.shape[1] == max(len(dataset.records[i].labels) for i in indices)
    assert batch.indices.tolist() == indices
    assert batch.sizes.tolist() == [list(store.size(i)) for i in indices]
    for place, index in enumerate(indices):
        (h, w), scale, truth = store.size(index), store.scale(index), dataset.records[index]
        image, boxes = store.get(index), torch.from_numpy(truth.boxes * np.float32(scale))
        if mirrored[place]:
            image = image.flip(-1)
            boxes = torch.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], dim=1)
        assert batch.scales[place].item() == pytest.approx(scale)
        assert torch.equal(batch.images[place, :, :h, :w], image)
        assert not batch.images[place, :, h:].any()
        assert not batch.images[place, :, :, w:].any()
        count = len(truth.labels)
        torch.testing.assert_close(batch.boxes[place, :count], boxes)
        assert batch.labels[place].tolist() == [*truth.labels.tolist(), *[0] * (batch.labels.shape[1] - count)]
        assert not batch.boxes[place, count:].any()


def test_types() -> None:
    batch = call(maker()[0], [1, 2])
    kinds = {name: getattr(batch, name).dtype for name in ("images", "sizes", "scales", "boxes", "labels", "indices")}
    assert kinds == {
        "images": torch.uint8,
        "sizes": torch.int64,
        "scales": torch.float32,
        "boxes": torch.float32,
        "labels": torch.int64,
        "indices": torch.int64,
    }
    assert len(batch) == 2
    assert all(torch.equal(getattr(batch.to("cpu"), name), getattr(batch, name)) for name in kinds)


def test_a_batch_without_objects_has_one_padded_place() -> None:
    batch = call(maker()[0], [0, 3])
    assert batch.boxes.shape == (2, 1, 4)
    assert not batch.labels.any()


def test_flips_follow_from_seed_epoch_and_index_alone() -> None:
    make, _, _ = maker(UNIFORM)
    one_by_one = torch.cat([call(make, [index], epoch=2).images for index in range(8)])
    assert torch.equal(one_by_one, call(make, list(range(8)), epoch=2).images)
    again, _, _ = maker(UNIFORM)
    assert torch.equal(one_by_one, call(again, list(range(8)), epoch=2).images)
    mixed = make(np.array([4, 4, 4]), np.array([0, 2, 5]))
    assert torch.equal(mixed.images[1], one_by_one[4])


def test_the_coin_is_fair_and_its_keys_are_unrelated() -> None:
    index, epoch = (part.ravel() for part in np.meshgrid(np.arange(300), np.arange(40)))
    values = coin(0, epoch, index)
    assert ((values >= 0) & (values < 1)).all()
    assert len(np.unique(values)) == values.size
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert np.histogram(values, 10, (0, 1))[0] == pytest.approx(np.full(10, 1200), rel=0.12)
    table = values.reshape(40, 300)
    for other in (
        np.roll(table, 1, axis=0),
        np.roll(table, 1, axis=1),
        coin(1, epoch, index).reshape(40, 300),
        table[::-1],
    ):
        assert abs(np.corrcoef(table.ravel(), other.ravel())[0, 1]) < 0.05


def test_pinned_coin() -> None:
    """Resuming an old run needs the flips it began with."""
    values = coin(7, np.array([0, 0, 3]), np.array([0, 1, 5]))
    np.testing.assert_allclose(values, PINNED, rtol=1e-12)


def test_difficult_and_crowd_are_left_out_of_training_only() -> None:
    boxes = [[0, 0, 5, 5], [1, 1, 6, 6], [2, 2, 7, 7]]
    records = [record(0, 24, 24, boxes, difficult=[True, False, False], crowd=[False, False, True])]
    assert call(maker(records)[0], [0]).labels.tolist() == [[2]]
    everything = call(maker(records, training=False, flip=1.0)[0], [0])
    assert everything.labels.tolist() == [[1, 2, 3]]
    assert everything.boxes.tolist() == [boxes]


def test_a_uniform_set_of_the_right_size_is_not_padded() -> None:
    make, _, _ = maker([record(k, 32, 48) for k in range(2)], multiple=16, short=32)
    assert call(make, [0, 1]).images.shape == (2, 3, 32, 48)


def test_batches_are_no_views_of_the_cache() -> None:
    make, _, _ = maker(UNIFORM, flip=0.0)
    before = call(make, [1, 2]).images.clone()
    call(make, [1, 2]).images.zero_()
    assert torch.equal(call(make, [1, 2]).images, before)


def test_a_store_of_another_set_is_refused() -> None:
    _, store, _ = maker()
    dataset, _ = in_memory(*UNIFORM[:3])
    with pytest.raises(ValueError, match="8 images, the data set 3"):
        BatchMaker(dataset, store, flip=0.0, seed=0, multiple=8, training=True)


@pytest.mark.parametrize(("stride", "multiple"), [(8, 32), (16, 32), (32, 32), (48, 96), (64, 64)])
def test_sides_are_whole_cells_of_the_map_and_come_in_few_sizes(stride: int, multiple: int) -> None:
    assert side_multiple(stride) == multiple


def test_proposals_follow_their_images() -> None:
    make, store, dataset = maker(flip=0.5)
    given = [np.array([[1, 2, 9, 8], [0, 0, 20, 20]], np.float32)[: k % 3] for k in range(8)]
    settings = {"flip": 0.5, "seed": 0, "multiple": 8, "training": True}
    indices = [5, 2, 0, 7]
    batch = ProposalBatchMaker(dataset, store, given, **settings)(np.array(indices), np.full(4, 3))
    plain, found = call(make, indices, epoch=3), batch.proposals
    assert torch.equal(batch.images, plain.images)
    assert found is not None
    assert found.boxes.shape == (4, 2, 4)
    assert found.valid.sum(1).tolist() == [2, 2, 0, 1]
    mirrored = coin(0, np.full(4, 3), np.array(indices)) < 0.5
    assert mirrored.any()
    assert not mirrored.all()
    for place, index in enumerate(indices):
        boxes = given[index] * store.scales[index]
        if mirrored[place]:
            boxes = np.stack(
                [store.size(index)[1] - boxes[:, 2], boxes[:, 1], store.size(index)[1] - boxes[:, 0], boxes[:, 3]], 1
            )
        np.testing.assert_allclose(found.boxes[place][found.valid[place]], boxes, rtol=1e-6)
    assert (found.scores[:, :-1] > found.scores[:, 1:]).all()
    moved = batch.to("cpu").proposals
    assert moved is not None
    assert torch.equal(moved.boxes, found.boxes)
    with pytest.raises(ValueError, match="7 images for 8 images"):
        ProposalBatchMaker(dataset, store, given[1:], **settings)
