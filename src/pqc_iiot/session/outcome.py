"""What the session machines say: messages to send, deliveries, reports, refusals."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..errors import PqcIiotError


class Fate(enum.Enum):
    """What became of a message that was handed over; each hears exactly one."""

    CONFIRMED = "confirmed"
    """The peer has said, authentically, that it arrived."""
    LOST = "lost"
    """It will never arrive: the peer has seen later ones."""
    UNCONFIRMED = "unconfirmed"
    """It was sent, and nobody said whether it arrived before the session ended."""
    UNSENT = "unsent"
    """It was never sent: no session came about, or the peer was revoked."""


@dataclass(frozen=True, slots=True)
class Send:
    """A frame for the peer with this key id; under no context it is for its inbox."""

    kid: bytes
    context: str | None
    frame: bytes


@dataclass(frozen=True, slots=True)
class Delivered:
    """A payload from the peer with this fingerprint, once. `session` and `number` name the
    packet."""

    fingerprint: bytes
    context: str
    payload: bytes
    session: bytes
    number: int


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the message with this `token`."""

    token: int
    fate: Fate


@dataclass(frozen=True, slots=True)
class Refused:
    """A frame that changed nothing, and why. `fingerprint` is of the peer it concerned,
    as far as it is known; whether it came from there is not."""

    error: PqcIiotError
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Established:
    """A session with this peer is ready to send; `began`: this side sent message 1."""

    fingerprint: bytes
    session: bytes
    began: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A session was closed and its keys wiped."""

    fingerprint: bytes
    session: bytes


Outcome = Send | Delivered | Report | Refused | Established | Ended
