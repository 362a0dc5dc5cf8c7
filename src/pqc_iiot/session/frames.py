"""Frames around handshake messages: a type, and whom it concerns.

    01 || session id (4) || number (3) || ciphertext || tag    a packet; made in the core
    02 || sender's key id (8) || message_1
    03 || C_I (4) || message_2
    04 || C_R (4) || message_3
    05 || C_I (4) || message_4

The sender's key id stands outside of message 1, so that strangers and floods are refused
before anything is computed. What travels inside packets, under no topic, is `Control`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..bundle import KID_SIZE, Bundle
from ..cose import KID, dumps
from ..errors import InvalidFrameError

ID_SIZE = 4
HEADER_SIZE = 8
"""Bytes of a packet before its ciphertext."""
OVERHEAD = HEADER_SIZE + 16
"""Bytes of a packet beyond its payload."""
MAX_MESSAGE_1 = 1 + KID_SIZE + 1700
MAX_HANDSHAKE = 1 + ID_SIZE + 6400
"""Bytes; more than any suite's frame has."""
MAX_SEEN = 512
"""Numbers that one `Control.RECEIVED` tells of."""
CREDENTIAL_ID_SIZE = 2
"""Bytes of the key id in ID_CRED_x: a hint. Message 1's frame has already said who calls,
the caller knows whom, and MAC, signature and transcript cover the credential itself."""

# CWT claims: `sub` (RFC 8392), and private-use ones (below -65536).
_SUB, _SERIAL, _FINGERPRINT = 2, -65537, -65540


class Kind(enum.IntEnum):
    """First byte of a frame."""

    PACKET = 1
    MESSAGE_1 = 2
    MESSAGE_2 = 3
    MESSAGE_3 = 4
    MESSAGE_4 = 5


class Control(enum.IntEnum):
    """First byte of what a packet without a topic holds."""

    RECEIVED = 1
    """Which packets arrived: `next` (3), `oldest` (3), then a bit for each number below
    `next`, the nearest first. What is below `oldest` and has no bit will never arrive."""
    ASK = 2
    """Asks for RECEIVED."""
    HANDSHAKE = 3
    """A frame with message 1 from somebody whom this packet proves to be the peer."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame taken apart. `who` is a key id in message 1, else a session id."""

    kind: Kind
    who: bytes
    message: bytes


def parse(frame: bytes) -> Frame:
    """Takes a frame apart; `InvalidFrameError` for anything that is none, or too long."""
    try:
        kind = Kind(frame[0])
    except (IndexError, ValueError):
        raise InvalidFrameError("these bytes are not of a session") from None
    if kind is Kind.PACKET:
        if len(frame) < OVERHEAD:
            raise InvalidFrameError("the packet is too short")
        return Frame(kind, frame[1 : 1 + ID_SIZE], frame)
    end, limit = 1 + ID_SIZE, MAX_HANDSHAKE
    if kind is Kind.MESSAGE_1:
        end, limit = 1 + KID_SIZE, MAX_MESSAGE_1
    if not end < len(frame) <= limit:
        raise InvalidFrameError("the handshake frame has an impossible length")
    return Frame(kind, frame[1:end], frame[end:])


def make(kind: Kind, who: bytes, message: bytes) -> bytes:
    """The frame of a handshake message."""
    return b"%c%b%b" % (kind, who, message)


def packet_number(packet: bytes) -> int:
    """The number that a packet claims."""
    return int.from_bytes(packet[1 + ID_SIZE : HEADER_SIZE], "big")


def credential(bundle: Bundle) -> tuple[bytes, bytes]:
    """ID_CRED_x and CRED_x (RFC 9528 section 3.5), encoded.

    The credential is a CWT Claims Set with name, serial and fingerprint, which covers both
    keys and the suite, and is what was compared when the peer was trusted. The keys
    themselves would say no more, and hashing them ten times costs an eighth of a handshake.
    """
    claims = {_SUB: bundle.name, _SERIAL: bundle.serial, _FINGERPRINT: bundle.fingerprint}
    return dumps({KID: bundle.kid[:CREDENTIAL_ID_SIZE]}), dumps(claims)


def received(next_expected: int, oldest: int, bits: bytes) -> bytes:
    """What follows `Control.RECEIVED`; see `Session.received`."""
    return next_expected.to_bytes(3, "big") + oldest.to_bytes(3, "big") + bits


def parse_received(body: bytes) -> tuple[int, int, int]:
    """Undoes `received`; `InvalidFrameError` where it is none."""
    if not 6 <= len(body) <= 6 + MAX_SEEN // 8:
        raise InvalidFrameError("what the peer says it received has another shape")
    return (
        int.from_bytes(body[:3], "big"),
        int.from_bytes(body[3:6], "big"),
        int.from_bytes(body[6:], "little"),
    )
