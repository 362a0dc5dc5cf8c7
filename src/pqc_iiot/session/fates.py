"""Messages of one session whose arrival is still open, kept as runs of consecutive ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .frames import MAX_SEEN
from .outcome import Fate

_YOUNG = 1.0
"""Seconds within which the messages of a run were sent."""


@dataclass(slots=True)
class _Run:
    """Numbers from `number` to below `end`; a token is its number and `offset`."""

    number: int
    end: int
    offset: int
    since: float

    def split(self, count: int) -> _Run:
        """Takes the first `count` messages off it."""
        first = _Run(self.number, self.number + count, self.offset, self.since)
        self.number += count
        return first

    @property
    def tokens(self) -> range:
        return range(self.number + self.offset, self.end + self.offset)


_NONE = _Run(0, -1, 0, 0.0)
"""No message follows it."""


class Unconfirmed:
    """What was sent and not yet heard of, in the order of its numbers."""

    __slots__ = ("_last", "_runs")

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._last = _NONE

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def runs(self) -> int:
        """How many runs they make: what they cost."""
        return len(self._runs)

    def add(self, number: int, token: int, now: float) -> None:
        """One message more. A long train of messages costs no more memory than one."""
        last = self._last
        if number == last.end and token - number == last.offset and now < last.since + _YOUNG:
            last.end = number + 1
        else:
            self._last = _Run(number, number + 1, token - number, now)
            self._runs.append(self._last)

    def take(
        self, next_expected: int, oldest: int, seen: int, sent_before: float
    ) -> Iterator[tuple[range, Fate]]:
        """What the peer's answer decides: see `frames.received`. Of what it leaves open,
        that sent before `sent_before` is given up."""
        kept: list[_Run] = []
        for run in self._runs:
            while run.number < min(run.end, next_expected):
                count, fate = self._alike(run, next_expected, oldest, seen)
                part = run.split(count)
                if fate is None and part.since < sent_before:
                    fate = Fate.UNCONFIRMED
                if fate is None:
                    kept.append(part)
                else:
                    yield part.tokens, fate
            if run.number < run.end:
                kept.append(run)
        self._runs = kept
        if not kept or kept[-1] is not self._last:
            self._last = _NONE

    @staticmethod
    def _alike(run: _Run, next_expected: int, oldest: int, seen: int) -> tuple[int, Fate | None]:
        """How many messages at the run's beginning have one fate, and which."""
        count = min(run.end, next_expected) - run.number
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
        runs, self._runs, self._last = self._runs, [], _NONE
        for run in runs:
            yield run.tokens, fate
