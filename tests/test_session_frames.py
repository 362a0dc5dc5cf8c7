"""The bytes around handshake messages, and of what one end tells the other."""

from __future__ import annotations

import cbor2
import pytest

from pqc_iiot import InvalidFrameError
from pqc_iiot.session.frames import (
    Frame,
    Kind,
    credential,
    make,
    packet_number,
    parse,
    parse_received,
    received,
)
from session_network import keys

MOST = {Kind.MESSAGE_1: 1709, **dict.fromkeys(list(Kind)[2:], 6405)}
"""Bytes that a handshake frame may have, which is more than any suite's has."""


@pytest.mark.parametrize("kind", MOST)
def test_a_handshake_frame_says_whom_it_concerns_and_has_a_possible_length(kind: Kind) -> None:
    who = b"12345678" if kind is Kind.MESSAGE_1 else b"1234"
    for message in (b"m", bytes(MOST[kind] - 1 - len(who))):
        frame = make(kind, who, message)
        assert frame == bytes((kind,)) + who + message
        assert parse(frame) == Frame(kind, who, message)
    for message in (b"", bytes(MOST[kind] - len(who))):
        with pytest.raises(InvalidFrameError):
            parse(make(kind, who, message))


def test_a_packet_has_24_bytes_or_more_among_them_its_number() -> None:
    packet = b"\x01" + b"1234" + b"\1\2\3" + bytes(16)
    assert parse(packet) == Frame(Kind.PACKET, b"1234", packet)
    assert packet_number(packet) == 0x010203
    with pytest.raises(InvalidFrameError):
        parse(packet[:-1])


@pytest.mark.parametrize("data", [b"", b"\0" + bytes(30), b"\x06" + bytes(30)])
def test_other_bytes_are_not_of_a_session(data: bytes) -> None:
    with pytest.raises(InvalidFrameError):
        parse(data)


def test_a_credential_is_name_serial_and_fingerprint_and_its_id_two_bytes_of_the_key_id() -> None:
    bundle = keys("a").bundle
    key_id, claims = map(cbor2.loads, credential(bundle))
    assert key_id == {4: bundle.kid[:2]}
    assert claims == {2: "a", -65537: 1, -65540: bundle.fingerprint}


def test_what_arrived_is_told_of_512_numbers_at_most() -> None:
    for bits in (b"", b"\x05", bytes(63) + b"\x80"):
        body = received(0x010203, 0x040506, bits)
        assert body == b"\1\2\3\4\5\6" + bits
        assert parse_received(body) == (0x010203, 0x040506, int.from_bytes(bits, "little"))
    for body in (b"\1\2\3\4\5", b"\1\2\3\4\5\6" + bytes(65)):
        with pytest.raises(InvalidFrameError):
            parse_received(body)
