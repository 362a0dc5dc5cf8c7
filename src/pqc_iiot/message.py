"""What goes into a node and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """What `open` returns: verified, fresh, from a trusted peer.

    `sender` is the peer's name here, `fingerprint` its key set's (32 bytes), `sequence`
    the sender's number for it, `context` what it is bound to (an MQTT topic).
    """

    sender: str
    sequence: int
    payload: bytes
    context: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Incoming:
    """A frame as a transport brings it. `redelivered`: the transport says that it may
    have brought it before (retained); this only ever makes a refusal quieter. `transport`
    is the transport's name, for the log."""

    frame: bytes
    context: str
    redelivered: bool = False
    transport: str = ""
