"""Messages of one session whose arrival is still open, kept as runs of consecutive ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .frames import MAX_SEEN
from .outcome import Fate

_LONGEST, _YOUNG = 4096, 1.0
"""A run has at most so many messages, sent within so many seconds."""


@dataclass(slots=True)
class _Run:
    number: int
    token: int
    count: int
    since: float

    def split(self, count: int) -> _Run:
        """Takes the first `count` messages off it."""
        first = _Run(self.number, self.token, count, self.since)
        self.number, self.token = self.number + count, self.token + count
        self.count -= count
        return first

    @property
    def tokens(self) -> range:
        return range(self.token, self.token + self.count)


class Unconfirmed:
    """What was sent and not yet heard of, in the order of its numbers."""

    __slots__ = ("_count", "_runs")

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def runs(self) -> int:
        """How many runs they make: what they cost."""
        return len(self._runs)

    def add(self, number: int, token: int, now: float) -> None:
        """One message more. A long train of messages costs no more memory than one."""
        self._count += 1
        if self._runs:
            last = self._runs[-1]
            if (
                number - last.number == last.count == token - last.token
                and last.count < _LONGEST
                and now - last.since < _YOUNG
            ):
                last.count += 1
                return
        self._runs.append(_Run(number, token, 1, now))

    def take(
        self, next_expected: int, oldest: int, seen: int, sent_before: float
    ) -> Iterator[tuple[range, Fate]]:
        """What the peer's answer decides: see `frames.received`. Of what it leaves open,
        that sent before `sent_before` is given up."""
        kept: list[_Run] = []
        for run in self._runs:
            while run.count and run.number < next_expected:
                count, fate = self._alike(run, next_expected, oldest, seen)
                part = run.split(count)
                if fate is None and part.since < sent_before:
                    fate = Fate.UNCONFIRMED
                if fate is None:
                    kept.append(part)
                else:
                    self._count -= count
                    yield part.tokens, fate
            if run.count:
                kept.append(run)
        self._runs = kept

    @staticmethod
    def _alike(run: _Run, next_expected: int, oldest: int, seen: int) -> tuple[int, Fate | None]:
        """How many messages at the run's beginning have one fate, and which."""
        count = min(run.count, next_expected - run.number)
        if next_expected - run.number > MAX_SEEN:
            return min(count, next_expected - run.number - MAX_SEEN), Fate.UNCONFIRMED
        # The run's part as bits, its first message as the highest.
        bits = seen >> (next_expected - run.number - count) & ((1 << count) - 1)
        arrived = bits >> (count - 1) & 1
        same = count - (((1 << count) - 1) ^ bits if arrived else bits).bit_length()
        if arrived:
            return same, Fate.CONFIRMED
        if run.number < oldest:
            return min(same, oldest - run.number), Fate.LOST
        return same, None

    def clear(self, fate: Fate) -> Iterator[tuple[range, Fate]]:
        """The same fate for all that is left."""
        runs, self._runs, self._count = self._runs, [], 0
        for run in runs:
            yield run.tokens, fate
