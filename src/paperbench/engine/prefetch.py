"""Batches computed one after the other in a background thread, delivered in order.

On a CUDA device the thread has a stream of its own, so that a batch is copied and made while the step before it computes. Three
things keep the two streams in order: the thread's begins with what the other has been asked for; the other waits for each batch;
and the memory of a batch is lent to it, so that the allocator does not hand it out again while the step still reads it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def depth_for(device: torch.device, wanted: int | None = None) -> int:
    """Return the number of batches to compute ahead: `wanted`, else 2 with a GPU and 0 on a CPU.

    On a CPU there is nothing to hide behind: a second thread that calls torch gets a second team of OpenMP threads, and the two
    teams take the cores from each other. `train.prefetch=2` against `train.prefetch=0` shows it in the samples per second.
    """
    if wanted is not None:
        return wanted
    return 2 if device.type == "cuda" else 0


@dataclass(frozen=True)
class _Made(Generic[T]):
    value: T
    ready: torch.cuda.Event | None
    """Recorded behind what makes the batch, where that has a stream of its own."""


class Prefetcher(Generic[T]):
    """Iterates over `produce(start)`, …, `produce(stop - 1)`, at most `depth` of them computed ahead.

    `depth=0` makes each when it is asked for, with the same results. `produce` runs without gradients and with `device` as
    the current one; where it is made ahead on CUDA, on a stream that all prefetchers of the device share, so that what they keep
    between batches (images of a store) is in order. It must not read what a step changes. What it raises is raised to the
    consumer in its turn. Use as a context manager: leaving it ends the thread.
    """

    def __init__(self, produce: Callable[[int], T], start: int, stop: int, *, depth: int, device: torch.device) -> None:
        self._produce = produce
        self._steps = range(start, stop)
        self._device = device
        self._free = threading.Semaphore(depth)
        self._ready: queue.SimpleQueue[_Made[T] | BaseException] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._making = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True) if depth > 0 else None
        self._stream = _stream_of(device) if depth > 0 and device.type == "cuda" else None

    def __enter__(self) -> Prefetcher[T]:
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._free.release()
        if self._thread is not None:
            self._thread.join()
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Make nothing ahead while the body runs, which measures; what is being made is finished first."""
        with self._making:
            yield

    def __iter__(self) -> Iterator[T]:
        for step in self._steps:
            yield self._make(step) if self._thread is None else self._take()

    def _take(self) -> T:
        made = self._ready.get()
        self._free.release()
        if isinstance(made, BaseException):
            raise made
        if made.ready is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(made.ready)
            for tensor in _tensors(made.value):
                if tensor.device.type == "cuda":
                    tensor.record_stream(stream)
        return made.value

    def _make(self, step: int) -> T:
        with torch.no_grad():
            return self._produce(step)

    def _make_ahead(self, step: int) -> _Made[T]:
        if self._stream is None:
            return _Made(self._make(step), None)
        ready = torch.cuda.Event()
        with torch.cuda.stream(self._stream):
            value = self._make(step)
            ready.record(self._stream)
        return _Made(value, ready)

    def _work(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # the current device is a thread's own
        for step in self._steps:
            self._free.acquire()
            if self._closed.is_set():
                return
            try:
                with self._making:
                    made = self._make_ahead(step)
                self._ready.put(made)
            except BaseException as error:
                self._ready.put(error)
                return


@cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a batch: a tensor, or one in tuples, lists, dictionaries and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
