"""The store against a counter in hardware that nobody can set back.

The store holds how far the counter must be, and is always written first: to one above, then
the anchor, then the counter itself moves. So a store that is behind the counter is an older
copy, wherever the anchor came from; one that is a single step ahead was interrupted, and the
counter follows. Nothing that a step announces is used before the counter has moved.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import CounterRollbackError
from .providers import Counter

_RECOVER = "make new keys and announce them: pqc-iiot recover"


@dataclass(frozen=True, slots=True)
class Count:
    """Where a counter must be, and which one it is; `name` is empty without any."""

    value: int = 0
    name: bytes = b""

    def next(self) -> Count:
        """One further."""
        return Count(self.value + 1, self.name) if self.name else self


def start(counter: Counter | None) -> Count:
    """The count that a new store begins with."""
    return Count(counter.value(), counter.name) if counter else Count()


def check(counter: Counter | None, stored: Count) -> Count:
    """The count to go on from. `CounterRollbackError` where `stored` is older than the
    counter, or was kept with another one."""
    if counter is None:
        if stored.name:
            raise CounterRollbackError(
                "this state was kept with a counter in hardware that the provider does not have",
                hint=f"open it with the provider that it was made with, or {_RECOVER}",
            )
        return stored
    if not stored.name:
        return start(counter)
    value = counter.value()
    if counter.name != stored.name:
        raise CounterRollbackError(
            "the hardware's counter is another one than this state was kept with", hint=_RECOVER
        )
    if value > stored.value:
        raise CounterRollbackError(
            "the state is older than the hardware's counter says, by"
            f" {value - stored.value} steps: it was restored from a copy",
            hint=_RECOVER,
        )
    if value < stored.value - 1:
        raise CounterRollbackError(
            f"the hardware's counter is at {value}, the state at {stored.value}:"
            " the counter was set back or made anew",
            hint=_RECOVER,
        )
    reach(counter, stored)
    return stored


def reach(counter: Counter | None, count: Count) -> None:
    """Moves the counter to `count`, which the store has already. What failed half-way may be
    tried again. `CounterRollbackError` where somebody else moves it too."""
    if counter is None:
        return
    value = counter.value()
    if value < count.value:
        value = counter.increment()
    if value != count.value:
        raise CounterRollbackError(
            f"the hardware's counter is at {value} and should be at {count.value}:"
            " another device uses it too",
            hint="give each device its own counter, then " + _RECOVER,
        )
