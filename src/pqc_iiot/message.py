"""What goes into a node and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


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


@dataclass(frozen=True, slots=True)
class Incoming:
    """A frame as a transport brings it. `redelivered`: the transport says that it may
    have brought it before (retained); this only ever makes a refusal quieter. `transport`
    is the transport's name, for the log."""

    frame: bytes
    context: str
    redelivered: bool = False
    transport: str = ""
