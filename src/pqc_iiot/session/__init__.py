"""Sessions: an authenticated handshake once, then small packets at the speed of AES.

`Sessions` holds all sessions of a device, without I/O and without a clock: inputs are the
time and what arrived, outputs are outcomes. See docs/sessions.md for the protocol.
"""

from __future__ import annotations

from .limits import Limits
from .outcome import (
    Ended,
    Established,
    Fate,
    Outcome,
    Refused,
    Report,
    Send,
)
from .table import Sessions

__all__ = [
    "Ended",
    "Established",
    "Fate",
    "Limits",
    "Outcome",
    "Refused",
    "Report",
    "Send",
    "Sessions",
]
