"""Counters of what a device does, for whoever watches it (`node.meter`, nothing by default).

Their labels are names of this package, never words from the wire: whoever sends frames can
make numbers grow, not their number.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

TRANSPORTS: Final = ("mqtt", "memory", "direct", "other")
"""What a transport may be called here; `direct` is none, `other` everything else."""

BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
"""Upper bounds of durations counted together, in seconds."""

Direction: TypeAlias = Literal["in", "out"]
Operation: TypeAlias = Literal["seal", "open", "commit"]
"""What takes time: one frame out, one call with frames in (with its commit), one commit."""


@dataclass(slots=True)
class Durations:
    """A histogram: how many up to each of `BOUNDS` but above the one before, and beyond the
    last; and the sum of all, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0


class Meter:
    """Counts from any thread at once. `queues` tell how much waits, by the queue's name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.messages: Counter[tuple[Direction, str, bool]] = Counter()
        """By direction, transport and whether it was accepted."""
        self.refusals: Counter[tuple[Direction, str]] = Counter()
        """By direction and the error's `code`."""
        self.durations: dict[Operation, Durations] = {
            "seal": Durations(),
            "open": Durations(),
            "commit": Durations(),
        }
        self.queues: dict[str, Callable[[], int]] = {}

    def accepted(self, direction: Direction, transport: str, count: int = 1) -> None:
        """Messages were accepted."""
        key = direction, _name(transport), True
        with self._lock:
            self.messages[key] += count

    def refused(self, direction: Direction, transport: str, code: str) -> None:
        """A message was refused."""
        key = direction, _name(transport), False
        with self._lock:
            self.messages[key] += 1
            self.refusals[direction, code] += 1

    def refused_bundle(self, code: str) -> None:
        """A bundle, or what was asked about a peer, was refused."""
        with self._lock:
            self.refusals["in", code] += 1

    def took(self, operation: Operation, begin: float) -> None:
        """An operation that began at `begin`, by `time.perf_counter`, has ended."""
        seconds = time.perf_counter() - begin
        index = bisect_left(BOUNDS, seconds)
        with self._lock:
            durations = self.durations[operation]
            durations.counts[index] += 1
            durations.total += seconds


def _name(transport: str) -> str:
    return transport if transport in TRANSPORTS else "other" if transport else "direct"
