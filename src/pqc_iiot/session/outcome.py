"""What the session machines say: messages to send, deliveries, reports, refusals."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..errors import PqcIiotError
from ..message import Message


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
class Report:
    """What became of the messages with these tokens, to the peer named so."""

    tokens: range
    fate: Fate
    name: str


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
    name: str
    session: bytes
    began: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A session was closed and its keys wiped."""

    fingerprint: bytes
    name: str
    session: bytes


Outcome = Message | Send | Report | Refused | Established | Ended
