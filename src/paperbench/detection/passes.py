"""One pass over a data set without gradients: batched, shared out among processes, the same answers however many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from paperbench.detection.batches import Batch, BatchMaker
from paperbench.engine.prefetch import Prefetcher, depth_for
from paperbench.engine.run import Run

T = TypeVar("T")


def over_images(
    model: nn.Module,
    make: BatchMaker,
    answer: Callable[[Batch], Sequence[T]],
    *,
    batch_size: int,
    run: Run,
    name: str,
) -> list[T]:
    """`answer(batch)`, one value an image, for every image of `make` in its order; every rank returns all of them.

    `model` is in test mode meanwhile, then in the mode it came in. Ranks take whole batches in turn, so that a batch holds the same
    images however many processes there are. `name` is the phase under which progress is reported. Raises `Stopped` between
    two batches when the run was asked to stop.
    """
    count = len(make.dataset)
    chunks = [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    own = chunks[run.ranks.rank :: run.ranks.world]
    training = model.training
    model.eval()
    answers: dict[int, T] = {}
    try:
        with Prefetcher(
            lambda k: make(own[k], np.zeros_like(own[k])), 0, len(own), depth=depth_for(run.device), device=run.device
        ) as batches:
            stream = iter(batches)
            for turn in range(-(-len(chunks) // run.ranks.world)):
                run.raise_if_stopped()  # every rank asks in every turn, also one that has no batch left in the last
                if turn < len(own):
                    with run.autocast(), torch.inference_mode():
                        answers |= dict(zip(own[turn].tolist(), answer(next(stream)), strict=True))
                run.reporter.progress(name, min((turn + 1) * batch_size * run.ranks.world, count), count, {})
    finally:
        model.train(training)
    everything: dict[int, T] = {}
    for part in run.ranks.all_gather(answers):
        everything |= part
    return [everything[index] for index in range(count)]
