"""How good the clock is that stamps the records: what the kernel says of its discipline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

_TIME_ERROR: Final = 5
_UNSYNCHRONISED: Final = 0x40  # STA_UNSYNC
_WORDS: Final = 32  # struct timex has 26 words of the machine's size; the rest is room


@dataclass(frozen=True, slots=True)
class ClockState:
    """`clock` says whether something (NTP, PTP) disciplines the clock; `clock_error` is its
    greatest error in microseconds by its own estimate, 0 where that is unknown."""

    clock: Literal["synchronised", "unsynchronised", "unknown"]
    clock_error: int


def clock_state() -> ClockState:
    """The clock's state now, by adjtimex(2), which is only asked and changes nothing."""
    try:
        import ctypes

        timex = (ctypes.c_long * _WORDS)()  # word 0 is `modes`: 0 asks
        state = ctypes.CDLL(None).adjtimex(timex)
    except (ImportError, OSError, AttributeError):
        return ClockState("unknown", 0)
    if state < 0:
        return ClockState("unknown", 0)
    _, _, _, error, _, status = timex[:6]  # modes, offset, freq, maxerror, esterror, status
    free = state == _TIME_ERROR or status & _UNSYNCHRONISED
    return ClockState("unsynchronised" if free else "synchronised", max(0, int(error)))
