"""The time of a detector is its own: batches that are made ahead wait while it is taken."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from paperbench.detection.evaluation import inference
from tests.detection.test_resized_images import RUN, maker, net_of, scenes


@pytest.mark.parametrize(("depth", "timed"), [(0, [1, 2]), (2, [1])])
def test_nothing_is_decoded_while_a_batch_is_timed(
    depth: int, timed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "depth_for", lambda _: depth)
    monkeypatch.setattr(inference, "TIMED_BATCHES", 1)
    net, dataset = net_of("one-stage"), scenes((1, 1, 1))
    make, detect = maker(net, dataset), net.detect
    busy, seen = threading.Event(), []

    def slow_make(*arguments: Any) -> Any:
        busy.set()
        time.sleep(0.02)
        batch = make(*arguments)
        busy.clear()
        return batch

    def watched(batch: Any) -> Any:
        time.sleep(0.01)
        seen.append(busy.is_set())
        return detect(batch)

    monkeypatch.setattr(net, "detect", watched)
    inference.detect_all(net, slow_make, 3, batch_size=1, run=RUN)  # type: ignore[arg-type]
    assert [seen[turn] for turn in timed] == [False] * len(timed)
