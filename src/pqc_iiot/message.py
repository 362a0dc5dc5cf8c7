"""What goes into a node and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .bundle import KID_SIZE

ENTRY_SIZE = 128
"""What an entry of a queue is counted for beside its content, in bytes."""


class Message(NamedTuple):
    """What `open` returns: verified, fresh, from a trusted peer.

    `sender` is the peer's name here, `fingerprint` its key set's (32 bytes), `sequence`
    the sender's number for it, `context` what it is bound to (an MQTT topic). `session` is
    the id of the session through which it came (4 bytes), in which case the number is that
    session's; empty for a frame of its own.
    """

    # A named tuple: it is made for every packet, and a frozen dataclass takes thrice as long.
    sender: str
    sequence: int
    payload: bytes
    context: str
    fingerprint: bytes
    session: bytes = b""

    @property
    def id(self) -> bytes:
        """Names this message and no other, also when the inbox gives it again: the sender's
        key id (8 bytes), the session, the number (8 bytes)."""
        return self.fingerprint[:KID_SIZE] + self.session + self.sequence.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A frame as a transport brings it. `redelivered`: the transport says that it may
    have brought it before (retained, or sent again); this only ever makes a refusal quieter.
    `transport` is the transport's name, for the log."""

    frame: bytes
    context: str
    redelivered: bool = False
    transport: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A frame in the outbox: its sequence `number`, the peer it is for, how it is to be
    published, and since when it waits (by the device's own clock, in seconds)."""

    number: int
    to: str
    context: str
    frame: bytes
    qos: int
    retain: bool
    since: int

    @property
    def size(self) -> int:
        """Bytes for which it counts."""
        return len(self.frame) + len(self.context) + ENTRY_SIZE
