"""Streams of the pretended device: what two of them do to one piece of memory must be in an order that one has waited for.

Every stream counts its operators, and knows up to which one of each other stream it has waited (a vector clock, Mattern 1989). A
use of memory that another stream wrote, or a write to what another one reads or wrote, is recorded unless that was waited for. So
is the use of memory that was made on another stream than the default one and was not lent by `record_stream`: torch would give it
to somebody else while it is used.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.device.record import WAIT, Record

Clock = Counter[int]
"""Stream -> its operators that have been waited for."""


@dataclass
class _Memory:
    made_on: int
    written: tuple[int, int]
    """Stream, and which of its operators."""
    read: dict[int, int] = field(default_factory=dict)
    lent: set[int] = field(default_factory=set)


class Order:
    """What the streams of this process have waited for. While `several` is False there is one, and nothing to look at."""

    def __init__(self) -> None:
        self.several = False
        self._clocks: dict[int, Clock] = {0: Clock()}
        self._memory: dict[int, _Memory] = {}
        self._threads = threading.local()
        self._lock = threading.RLock()

    def new_stream(self) -> int:
        with self._lock:
            number = len(self._clocks)
            self._clocks[number] = Clock()
            self.several = number > 0
            return number

    @property
    def current(self) -> int:
        """The stream of this thread."""
        return getattr(self._threads, "stream", 0)

    @contextmanager
    def on(self, stream: int) -> Iterator[None]:
        before = self.current
        self._threads.stream = stream
        try:
            yield
        finally:
            self._threads.stream = before

    def now(self, stream: int) -> Clock:
        """What happens on `stream` so far, for others to wait for."""
        with self._lock:
            return self._clocks[stream].copy()

    def wait(self, stream: int, until: Clock) -> None:
        with self._lock:
            self._clocks[stream] |= until

    def host_waits(self, *, for_all: bool = False) -> None:
        """This thread has waited for its stream, or for all: what it asks for next comes later."""
        with self._lock:
            known = self._known_to_host()
            for stream in self._clocks if for_all else [self.current]:
                known |= self._clocks[stream]

    def _known_to_host(self) -> Clock:
        if not hasattr(self._threads, "known"):
            self._threads.known = Clock()
        return self._threads.known

    def use(self, read: Iterable[int], written: Iterable[int], made: Iterable[int]) -> list[str]:
        """Count an operator of this thread's stream on memory, by its keys; return what is wrong with that."""
        with self._lock:
            stream = self.current
            clock = self._clocks[stream]
            clock |= self._known_to_host()
            clock[stream] += 1
            faults = [fault for key in read if (fault := self._fault(self._memory.get(key), stream, writes=False))]
            faults += [fault for key in written if (fault := self._fault(self._memory.get(key), stream, writes=True))]
            for key in read:
                if key in self._memory:
                    self._memory[key].read[stream] = clock[stream]
            for key in written:
                if key in self._memory:
                    self._memory[key].written, self._memory[key].read = (stream, clock[stream]), {}
            for key in made:
                self._memory[key] = _Memory(stream, (stream, clock[stream]))
            return faults

    def _fault(self, memory: _Memory | None, stream: int, *, writes: bool) -> str:
        if memory is None:  # older than the second stream
            return ""
        clock = self._clocks[stream]
        by, which = memory.written
        if clock[by] < which:
            return f"stream {stream} has not waited for the write of stream {by}"
        if writes and any(clock[reader] < last for reader, last in memory.read.items()):
            return f"stream {stream} writes what another one still reads"
        if memory.made_on not in (0, stream) and stream not in memory.lent:
            return f"memory of stream {memory.made_on} is not lent to stream {stream} (record_stream)"
        return ""

    def lend(self, key: int, stream: int) -> None:
        with self._lock:
            if key in self._memory:
                self._memory[key].lent.add(stream)


def patches(order: Order, record: Record) -> dict[str, Any]:
    """Return what replaces parts of `torch.cuda`, by name."""

    class Stream:
        def __init__(self, *_: Any, number: int | None = None, **__: Any) -> None:
            self.number = order.new_stream() if number is None else number

        def synchronize(self) -> None:
            record.note(WAIT, "stream.synchronize")
            with order.on(self.number):
                order.host_waits()

        def wait_stream(self, stream: Stream) -> None:
            order.wait(self.number, order.now(stream.number))

        def wait_event(self, event: Event) -> None:
            order.wait(self.number, event.until)

        def record_event(self, event: Event | None = None) -> Event:
            event = event or Event()
            event.record(self)
            return event

    class Event:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.until = Clock()

        def record(self, stream: Stream | None = None) -> None:
            self.until = order.now(order.current if stream is None else stream.number)

        def wait(self, stream: Stream | None = None) -> None:
            order.wait(order.current if stream is None else stream.number, self.until)

        def synchronize(self) -> None:
            record.note(WAIT, "event.synchronize")
            order.host_waits(for_all=True)

        def query(self) -> bool:
            return True

        def elapsed_time(self, other: Event) -> float:
            return 1.0

    def synchronize(device: Any = None) -> None:
        record.note(WAIT, "torch.cuda.synchronize")
        order.host_waits(for_all=True)

    return {
        "Stream": Stream,
        "Event": Event,
        "current_stream": lambda device=None: Stream(number=order.current),
        "default_stream": lambda device=None: Stream(number=0),
        "stream": lambda stream: order.on(stream.number),
        "synchronize": synchronize,
    }
