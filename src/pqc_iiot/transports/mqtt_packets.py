"""MQTT 3.1.1 and 5 on the wire, as far as a client needs it: bytes to values and back.

No I/O, and no state but the reader's buffer. `version` is the protocol level of
CONNECT: 4 for MQTT 3.1.1, 5 for MQTT 5. Section numbers are those of MQTT 5.0 (OASIS,
2019). Whatever a broker sends that is not MQTT raises `TransportError`.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, ParamSpec, TypeVar

from ..errors import TransportError

P = ParamSpec("P")
R = TypeVar("R")

# 2.1.2 packet types
CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK = 8, 9
PINGRESP, DISCONNECT = 13, 14

PINGREQ = b"\xc0\x00"

# 2.2.2.2 properties, by the size of their value; 0 stands for a length-prefixed
# string or binary value, -1 for a pair of strings, -2 for a variable byte integer.
_PROPERTY_SIZES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
    **dict.fromkeys((0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F), 0),
    0x26: -1,
    0x0B: -2,
}
SESSION_EXPIRY = 0x11
SERVER_KEEP_ALIVE = 0x13
RECEIVE_MAXIMUM = 0x21
MAXIMUM_QOS = 0x24
RETAIN_AVAILABLE = 0x25
MAXIMUM_PACKET_SIZE = 0x27

_REASONS = {  # 2.4
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8D: "keep alive timeout",
    0x8E: "another client connected with the same client identifier",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x93: "receive maximum exceeded",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9E: "shared subscriptions not supported",
    0xA2: "wildcard subscriptions not supported",
}
UNSUPPORTED_VERSION, BAD_CLIENT_ID, BAD_CREDENTIALS, NOT_AUTHORIZED = 0x84, 0x85, 0x86, 0x87
_CONNACK_3 = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}  # MQTT 3.1.1, 3.2.2.3


class Connack(NamedTuple):
    """The broker's answer to CONNECT; `reason` in MQTT 5's numbers, 0 if accepted."""

    session_present: bool
    reason: int
    properties: dict[int, int]


class Publish(NamedTuple):
    """One message from the broker; `packet_id` is 0 at QoS 0, `dup` is its word."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int
    dup: bool = False


class Ack(NamedTuple):
    """PUBACK, PUBREC, PUBREL or PUBCOMP; failed if `reason` >= 0x80."""

    packet_id: int
    reason: int


def reason_name(reason: int) -> str:
    """A reason code in words."""
    return _REASONS.get(reason, f"reason code 0x{reason:02x}")


def encode_connect(
    client_id: str,
    *,
    version: int,
    clean_start: bool,
    keepalive: int,
    properties: dict[int, int],
    username: str | None,
    password: bytes | None,
) -> bytes:
    """CONNECT (3.1). `keepalive` in seconds; `properties` are left out at level 4."""
    flags = clean_start << 1 | (password is not None) << 6 | (username is not None) << 7
    body = struct.pack("!H4sBBH", 4, b"MQTT", version, flags, keepalive)
    body += _properties(properties, version) + _string(client_id.encode())
    if username is not None:
        body += _string(username.encode())
    if password is not None:
        body += _string(password)
    return _packet(CONNECT << 4, body)


def encode_publish(
    topic: bytes, payload: bytes, *, version: int, qos: int, retain: bool, packet_id: int, dup: bool
) -> bytes:
    """PUBLISH (3.3), without properties."""
    number = packet_id.to_bytes(2, "big") if qos else b""
    properties = b"\x00" if version == 5 else b""
    size = 2 + len(topic) + len(number) + len(properties) + len(payload)
    return b"%c%b%b%b%b%b%b" % (
        PUBLISH << 4 | dup << 3 | qos << 1 | retain,
        _length(size),
        len(topic).to_bytes(2, "big"),
        topic,
        number,
        properties,
        payload,
    )


def encode_ack(kind: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP that reports success (3.4 to 3.7)."""
    return struct.pack("!BBH", kind << 4 | (kind == PUBREL) << 1, 2, packet_id)


def encode_subscribe(packet_id: int, topic_filter: str, qos: int, *, version: int) -> bytes:
    """SUBSCRIBE to one filter (3.8)."""
    body = packet_id.to_bytes(2, "big") + _properties({}, version)
    return _packet(SUBSCRIBE << 4 | 2, body + _string(topic_filter.encode()) + bytes((qos,)))


def encode_disconnect(*, version: int, properties: dict[int, int]) -> bytes:
    """A normal DISCONNECT (3.14)."""
    body = b"\x00" + _properties(properties, version) if version == 5 else b""
    return _packet(DISCONNECT << 4, body)


def _strict(decode: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(decode)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return decode(*args, **kwargs)
        except (IndexError, struct.error) as error:
            raise _truncated() from error

    return checked


def _truncated() -> TransportError:
    return TransportError("the broker sent a truncated packet")


@_strict
def decode_connack(body: bytes, version: int) -> Connack:
    """The body of CONNACK (3.2), at either level: a broker may answer 5 with 4."""
    session_present, reason = body[0] & 1, body[1]
    properties: dict[int, int] = {}
    if version == 5 and len(body) > 2:
        size, start = _varint(body, 2)
        properties = _numbers(body, start, start + size)
    else:
        reason = _CONNACK_3.get(reason, reason)
    return Connack(bool(session_present), reason, properties)


def decode_publish(first: int, body: bytes, version: int) -> Publish:
    """A PUBLISH (3.3). A topic that is not UTF-8 gets replacement characters."""
    try:
        topic, qos, packet_id, position = _publish_head(first, body)
        if version == 5:
            if body[position]:
                size, position = _varint(body, position)
                position += size
            else:
                position += 1
    except IndexError as error:
        raise _truncated() from error
    if position > len(body):
        raise _truncated()
    return Publish(topic, body[position:], qos, bool(first & 1), packet_id, bool(first & 8))


@_strict
def decode_publish_head(first: int, body: bytes) -> Publish:
    """What is known of a PUBLISH from its first bytes, as the reader leaves them."""
    topic, qos, packet_id, _ = _publish_head(first, body)
    return Publish(topic, b"", qos, bool(first & 1), packet_id)


@_strict
def decode_ack(body: bytes) -> Ack:
    """The body of PUBACK, PUBREC, PUBREL or PUBCOMP, at either level."""
    (packet_id,) = struct.unpack_from("!H", body)
    return Ack(packet_id, body[2] if len(body) > 2 else 0)


@_strict
def decode_suback(body: bytes, version: int) -> Ack:
    """The body of a SUBACK for one filter (3.9): `reason` is the QoS granted, or >= 0x80."""
    (packet_id,) = struct.unpack_from("!H", body)
    position = 2
    if version == 5:
        size, position = _varint(body, position)
        position += size
    return Ack(packet_id, body[position])


class PacketReader:
    """Cuts a byte stream into packets; never holds more than one packet and one chunk.

    A PUBLISH of more than `max_packet` bytes is not stored but skipped, so that a
    message which is too large can be acknowledged and passed over.
    """

    def __init__(self, max_packet: int) -> None:
        self._max_packet = max_packet
        self._rest = bytearray()
        self._need = 2  # bytes of rest before another look is worth it
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes, int]]:
        """Yield (first byte, body, number of bytes skipped) for each packet seen so far."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data = bytes(self._rest)
            self._rest.clear()
        position, end = 0, len(data)
        self._need = 2
        while end - position >= 2:
            size, start = data[position + 1], position + 2
            if size > 127:
                try:
                    size, start = _varint(data, position + 1)
                except IndexError:  # not here yet
                    break
            first, stop, kept = data[position], start + size, size
            if size > self._max_packet:
                if first >> 4 != PUBLISH:
                    raise TransportError(f"the broker sent a packet of {size} bytes")
                if end < start + 2:
                    break
                # Enough to acknowledge it: the topic and the packet identifier.
                kept = min(size, 4 + (data[start] << 8 | data[start + 1]))
            if end < start + kept:
                self._need = start + kept - position
                break
            position = min(stop, end)
            self._skip = stop - position
            yield first, data[start : start + kept], size - kept
        self._rest += data[position:]


def _publish_head(first: int, body: bytes) -> tuple[str, int, int, int]:
    position = 2 + (body[0] << 8 | body[1])
    topic = body[2:position].decode(errors="replace")
    qos, packet_id = first >> 1 & 3, 0
    if qos == 3:
        raise TransportError("the broker sent a packet with QoS 3")
    if qos:
        packet_id = body[position] << 8 | body[position + 1]
        position += 2
    return topic, qos, packet_id, position


def _numbers(body: bytes, position: int, stop: int) -> dict[int, int]:
    """The numeric properties between two positions; texts are for people and skipped."""
    found: dict[int, int] = {}
    while position < stop:
        identifier, position = body[position], position + 1
        size = _PROPERTY_SIZES.get(identifier)
        if size is None:
            raise TransportError(f"the broker sent an unknown property 0x{identifier:02x}")
        if size == -2:
            found[identifier], position = _varint(body, position)
        elif size > 0:
            found[identifier] = int.from_bytes(body[position : position + size], "big")
            position += size
        else:
            for _ in range(1 - size):
                position += 2 + (body[position] << 8 | body[position + 1])
    if position > len(body):
        raise IndexError
    return found


def _properties(properties: dict[int, int], version: int) -> bytes:
    if version != 5:
        return b""
    body = b"".join(
        bytes((identifier,)) + value.to_bytes(_PROPERTY_SIZES[identifier], "big")
        for identifier, value in properties.items()
    )
    return _length(len(body)) + body


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _length(len(body)) + body


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _length(size: int) -> bytes:  # 1.5.5
    if size < 128:
        return b"%c" % size
    encoded = bytearray()
    while size > 127:
        encoded.append(size & 127 | 128)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A variable byte integer (1.5.5) and the position behind it."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte, position = data[position], position + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise TransportError("the broker sent a malformed length")
