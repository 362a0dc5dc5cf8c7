"""The recorded handshakes and packets of vectors/, without our code; the core's own tests read
the same file (rust/core/tests/session_vectors.rs)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest

from foreign_session import Handshake, KemKey, Packets, Party
from pqc_iiot.session import frames
from pqc_iiot.session.frames import Kind
from pqc_iiot.suites import SUITES, get_suite

FILE = Path(__file__).resolve().parents[1] / "vectors/session.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text())
by_suite = pytest.mark.parametrize("vector", VECTORS["handshakes"], ids=lambda v: str(v["suite"]))


def party(vector: dict[str, Any], who: str) -> Party:
    found = {name: bytes.fromhex(vector[who][name]) for name in ("id_cred", "cred", "public_key")}
    return Party(**found, sig_id=vector["sig_id"])


def handshake(vector: dict[str, Any], messages: list[bytes]) -> Handshake:
    key = KemKey(vector["suite"], bytes.fromhex(vector["ephemeral_seed"]))
    sides = party(vector, "initiator"), party(vector, "responder")
    return Handshake(vector["suite"], key, *sides, bytes.fromhex(vector["c_i"]), messages)


def messages(vector: dict[str, Any]) -> list[bytes]:
    return [frames.parse(bytes.fromhex(frame)).message for frame in vector["frames"]]


def test_every_suite_in_software_is_there() -> None:
    # Suite 6 signs in hardware.
    assert [vector["suite"] for vector in VECTORS["handshakes"]] == [n for n in SUITES if n < 6]
    for vector in VECTORS["handshakes"]:
        suite = get_suite(vector["suite"])
        assert (suite.edhoc, suite.sig.id) == (vector["edhoc_suite"], vector["sig_id"])


@by_suite
def test_an_independent_initiator_reads_the_handshake(vector: dict[str, Any]) -> None:
    made = handshake(vector, messages(vector))
    assert made.c_r.hex() == vector["c_r"]
    secrets = made.export(32768, b"", 96)
    assert secrets[:48].hex() == vector["initiator_secret"]
    assert secrets[48:].hex() == vector["responder_secret"]
    made.update()
    for case in vector["exports"]:
        secret = bytes.fromhex(case["secret"])
        assert made.export(case["label"], bytes.fromhex(case["context"]), len(secret)) == secret
    for who in ("initiator", "responder"):
        claims = cbor2.loads(party(vector, who).cred)
        assert list(claims) == [2, -65537, -65540]
        assert (claims[2], claims[-65537], len(claims[-65540])) == (who, 1, 32)


@by_suite
def test_and_takes_no_other_message(vector: dict[str, Any]) -> None:
    for at, message in enumerate(messages(vector)):
        for byte in (len(message) // 2, len(message) - 1):
            bent = bytearray(message)
            bent[byte] ^= 1
            changed = messages(vector)
            changed[at] = bytes(bent)
            with pytest.raises(Exception):  # noqa: B017, PT011 - whatever that library raises
                handshake(vector, changed)


@by_suite
def test_frames_say_whom_they_concern(vector: dict[str, Any]) -> None:
    found = [frames.parse(bytes.fromhex(frame)) for frame in vector["frames"]]
    c_i, c_r = bytes.fromhex(vector["c_i"]), bytes.fromhex(vector["c_r"])
    assert [frame.kind for frame in found] == list(Kind)[1:]
    assert [frame.who for frame in found[1:]] == [c_i, c_r, c_i]
    assert vector["suite"] > 1 or sum(len(frame) // 2 for frame in vector["frames"]) == 3758


def test_an_independent_sender_makes_the_same_packets() -> None:
    recorded = VECTORS["packets"]
    packets = Packets(bytes.fromhex(recorded["id"]), bytes.fromhex(recorded["secret"]))
    steps = set()
    for case in recorded["packets"]:
        made = packets.seal(case["number"], case["topic"], bytes.fromhex(case["payload"]))
        assert made.hex() == case["packet"]
        steps.add(case["number"] >> 14)
    assert steps == {0, 1, 3}


def test_an_independent_receiver_takes_the_same_packets() -> None:
    recorded = VECTORS["packets"]
    results = set()
    for case in VECTORS["arrivals"]:
        packets = Packets(
            bytes.fromhex(recorded["id"]), bytes.fromhex(recorded["secret"]), case["window"]
        )
        for step in case["steps"]:
            assert packets.open("t", bytes.fromhex(step["packet"])) == step["result"]
            results.add(step["result"])
    assert results == {"opened", "replay", "authentication_failed", "invalid_frame"}
