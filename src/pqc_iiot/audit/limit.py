"""How many events the wire may leave in the log: a token bucket per event and peer.

Whoever can send bytes can cause refusals. The first ones of a kind are recorded one by
one; beyond the limit they are only counted, and the count is recorded from time to time
(`events_suppressed`). Another bucket per event over all peers bounds what many peers, or
one who claims to be many, can do. Only the monotonic clock is asked.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .catalogue import EVENTS

WIRE_DRIVEN: Final = frozenset(
    name for name in EVENTS if name.startswith(("refused_", "peer_pending"))
) | {
    *("session_established", "session_ended", "messages_lost"),
    *("peer_witnessed", "peer_history_changed", "checkpoint_cosigned", "witness_refused"),
    "self_test_failed",
}
"""The events that bytes from outside can cause: without a trusted key, or (those of witnesses)
as often as a peer likes to. Once a self-test has failed, every frame is refused for that."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` events at once, then one every `interval` seconds, for each event and peer;
    `all_burst` and `all_interval` are the same for each event over all peers. `peers` is
    how many buckets are remembered, `report` the seconds between two reports."""

    burst: int = 100
    interval: float = 10.0
    all_burst: int = 1000
    all_interval: float = 1.0
    peers: int = 1024
    report: float = 10.0


@dataclass(frozen=True, slots=True)
class Suppressed:
    """`count` events kept out; `peers` is how many peers caused them (of those that were
    remembered), `peer` the one that caused most, or ""."""

    event: str
    count: int
    peers: int
    peer: str


class Limiter:
    """The buckets. Thread-safe; memory is bounded by `limit.peers`.

    A bucket is one number, the time at which it will be full again (the "theoretical
    arrival time" of the generic cell rate algorithm): so one that is full equals one that
    was never seen, and what is forgotten first is the bucket that was asked for longest ago.
    """

    def __init__(
        self, limit: Limit | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit or Limit()
        self._clock = clock
        self._lock = threading.RLock()  # re-entrant: a signal handler may emit too
        self._full_at: dict[tuple[str, str], float] = {}
        self._all_full_at: dict[str, float] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._since_report = 0
        self._crowded = self._limit.peers // 2  # from there on it matters who was here last
        self._margin = (self._limit.burst - 1) * self._limit.interval
        self._all_margin = (self._limit.all_burst - 1) * self._limit.all_interval
        self.total = 0
        """Events kept out since this object was made."""
        self.report_due = math.inf
        """When `take_report` has something to say, by the clock; infinite without."""

    def count_refused(self, event: str, peer: str, times: int = 1) -> int:
        """0 if the event may be recorded; else how many were kept out since the last report,
        this one and `times` - 1 of the same kind included."""
        key = event, peer
        with self._lock:
            now = self._clock()
            full_at = self._full_at.get(key, now)
            all_full_at = self._all_full_at.get(event, now)
            if full_at - now <= self._margin and all_full_at - now <= self._all_margin:
                self._draw(key, max(full_at, now) + self._limit.interval)
                self._all_full_at[event] = max(all_full_at, now) + self._limit.all_interval
                return 0
            if len(self._full_at) >= self._crowded:
                self._draw(key, full_at)
            count = self._counts.get(key, 0)
            if not count and len(self._counts) >= self._limit.peers:
                key = event, ""
                count = self._counts.get(key, 0)
            self._counts[key] = count + times
            self.total += times
            self._since_report += times
            if self._since_report == times:
                self.report_due = now + self._limit.report
            return self._since_report

    def take_report(self) -> list[Suppressed]:
        """What was kept out since the last time, one row per event."""
        with self._lock:
            counts, self._counts = self._counts, {}
            self._since_report, self.report_due = 0, math.inf
        rows = []
        for event in dict.fromkeys(event for event, _ in counts):
            of_event = {peer: count for (name, peer), count in counts.items() if name == event}
            peer = max(of_event, key=lambda peer: of_event[peer])
            rows.append(
                Suppressed(event, sum(of_event.values()), len(of_event.keys() - {""}), peer)
            )
        return rows

    def _draw(self, key: tuple[str, str], full_at: float) -> None:
        self._full_at.pop(key, None)
        self._full_at[key] = full_at  # at the end: asked for last
        if len(self._full_at) > self._limit.peers:
            del self._full_at[next(iter(self._full_at))]
