"""What sessions may cost, and when they are renewed."""

from __future__ import annotations

from dataclasses import dataclass

from .._core import Session
from ..errors import InvalidInputError

NUMBERS = 1 << 20
"""Packets, and failed openings, that the core allows for one key."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Knobs of sessions; times in seconds of a monotonic clock, rates per second.

    `window` is how far behind the highest number a packet may come: 0 is strict order.
    """

    window: int = 0
    rekey_packets: int = NUMBERS - (1 << 16)
    rekey_failures: int = NUMBERS // 2
    rekey_after: float = 86_400.0
    """Age at which a new handshake is begun; at twice this age a session is used no more."""
    answer_within: float = 1.0
    """Time for an answer before the first repetition; doubled with each."""
    repeat_at_most: float = 30.0
    attempts: int = 4
    """Repetitions without an answer before a message or session is given up."""
    give_up: float = 60.0
    """How long a message waits for a session before its sender hears that there is none."""
    confirm_every: int = 128
    confirm_within: float = 0.25
    """The receiver tells what arrived after so many packets, or after this time."""
    silence: float = 60.0
    """After hearing nothing for so long, a peer is asked before it is sent to."""
    grace: float = 90.0
    """How long a replaced session still receives after the last packet on it: longer than
    `silence`, for as long a peer that uses the other one sends on it without asking."""
    waiting: int = 1024
    """Messages that may wait for one peer's session."""
    unconfirmed: int = 8192
    """Messages to one peer whose arrival is still open; a long train counts as one."""
    half_open: int = 512
    """Handshakes of others, in all, that wait for message 3."""
    half_open_per_peer: int = 4
    sender_rate: float = 1.0
    sender_burst: float = 5.0
    total_rate: float = 500.0
    total_burst: float = 1000.0
    """Handshake messages answered, for each claimed sender and in all."""

    def __post_init__(self) -> None:
        if not 0 <= self.window <= 4096:
            raise InvalidInputError("window must be from 0 to 4096")
        if not 1 <= self.rekey_packets <= NUMBERS or not 1 <= self.rekey_failures <= NUMBERS:
            raise InvalidInputError(f"rekey limits must be from 1 to {NUMBERS}")
        if self.grace <= self.silence:
            raise InvalidInputError("grace must be longer than silence")

    def is_due(self, session: Session, age: float) -> bool:
        """Whether a session should be replaced by now."""
        return (
            session.sealed >= self.rekey_packets
            or session.next_expected >= self.rekey_packets
            or session.failures >= self.rekey_failures
            or age >= self.rekey_after
        )

    def is_over(self, session: Session, age: float) -> bool:
        """Whether a session must not be used to send any more."""
        return session.sealed >= NUMBERS or age >= 2 * self.rekey_after


class Bucket:
    """Tokens that come back at a rate; what finds none is refused."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._tokens = rate, burst, burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Takes a token, if there is one."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._tokens = min(self._burst, self._tokens + passed * self._rate)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
