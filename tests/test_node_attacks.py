"""Frames from somebody who means harm: an outsider, the broker, and an approved peer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cbor2
import pytest

from devices import Pair, events, introduce, make, refused, seen_rows
from foreign import Foreign, ForeignPeer, dumps
from pqc_iiot import (
    AuthenticationError,
    DuplicateError,
    Incoming,
    InvalidFrameError,
    Node,
    PqcIiotError,
    UnknownPeerError,
)
from pqc_iiot.errors import WrongRecipientError
from pqc_iiot.suites import SUITES


@dataclass
class Scene:
    """The controller, an honest sensor, and an approved peer that does as it likes."""

    plc: Node
    sensor: Node
    mallory: Foreign
    target: ForeignPeer

    @property
    def victim(self) -> ForeignPeer:
        return ForeignPeer.of(self.sensor.bundle.encoded)


@pytest.fixture
def scene(pair: Pair) -> Scene:
    mallory = Foreign(1, "mallory")
    pair.plc.peers.add_approved(mallory.bundle())
    pair.sensor.peers.add_approved(mallory.bundle())
    return Scene(pair.plc, pair.sensor, mallory, ForeignPeer.of(pair.plc.bundle.encoded))


def test_mallory_is_heard_as_mallory(scene: Scene) -> None:
    assert scene.plc.open(scene.mallory.seal(b"x", scene.target)).sender == "mallory"


def test_nobody_speaks_in_another_name(scene: Scene) -> None:
    kid, fingerprint = scene.victim.fingerprint[:8], scene.victim.fingerprint
    for lies in (
        {"sender_kid": kid},
        {"sender_kid": kid, "sender": fingerprint},
        {"sender": fingerprint},
    ):
        frame = scene.mallory.seal(b"x", scene.target, sequence=9, **lies)  # type: ignore[arg-type]
        with refused(scene.plc, AuthenticationError, "refused_authentication_failed"):
            scene.plc.open(frame)
    assert scene.plc.open(scene.sensor.seal(b"x", to="plc")).sender == "sensor"


def test_a_frame_is_not_passed_on(scene: Scene) -> None:
    """What mallory may read was signed for mallory: it proves nothing to others."""
    frame = scene.sensor.seal(b"to mallory", to="mallory")
    protected, unprotected, ciphertext = cbor2.loads(frame).value
    aad = dumps(["Encrypt0", protected, b""])
    plaintext = scene.mallory.algorithms.open(
        scene.mallory.kem_key, unprotected[-4] + ciphertext, aad
    )
    again = scene.mallory.seal(
        b"",
        scene.target,
        sequence=9,
        sender_kid=scene.victim.fingerprint[:8],
        edit_plaintext=lambda _: plaintext,
    )
    with refused(scene.plc, AuthenticationError, "refused_authentication_failed"):
        scene.plc.open(again)


def test_other_recipients_other_contexts_other_suites(scene: Scene) -> None:
    other = ForeignPeer.of(scene.sensor.bundle.encoded)
    seal = scene.mallory.seal
    frames = {
        "signed for another": seal(b"x", scene.target, recipient=other.fingerprint),
        "signed for another context": seal(b"x", scene.target, signed_context="line2"),
        "encrypted for another": seal(b"x", other, recipient_kid=scene.target.fingerprint[:8]),
    }
    for frame in frames.values():
        with refused(scene.plc, AuthenticationError, "refused_authentication_failed"):
            scene.plc.open(frame)
    with refused(scene.plc, InvalidFrameError, "refused_invalid_frame"):
        scene.plc.open(seal(b"x", scene.target, alg=-65795))
    with refused(scene.plc, WrongRecipientError, "refused_wrong_recipient"):
        scene.plc.open(seal(b"x", scene.target, recipient_kid=bytes(8)))
    with refused(scene.plc, UnknownPeerError, "refused_unknown_peer"):
        scene.plc.open(seal(b"x", scene.target, sender_kid=bytes(8)))


def test_the_suite_of_a_key_is_not_negotiable(tmp_path: Path) -> None:
    """Suites 4 and 5 have the same KEM; a key of one is no key of the other."""
    mallory = Foreign(5)
    with make(tmp_path, "plc", 5) as plc:
        plc.peers.add_approved(mallory.bundle())
        target = ForeignPeer.of(plc.bundle.encoded)
        assert plc.open(mallory.seal(b"x", target, alg=-65797))
        with refused(plc, WrongRecipientError, "refused_wrong_recipient"):
            plc.open(mallory.seal(b"x", target, alg=-65796))


@pytest.mark.parametrize("alg", [-65792, -65798, -65536, -65537, -1, -7, -(1 << 32), 1])
def test_suites_and_versions_that_do_not_exist(scene: Scene, alg: int) -> None:
    with refused(scene.plc, InvalidFrameError, "refused_invalid_frame"):
        scene.plc.open(scene.mallory.seal(b"x", scene.target, alg=alg))


@pytest.mark.parametrize("sequence", [0, 1 << 62, 1 << 63, (1 << 64) - 1])
def test_numbers_out_of_range(scene: Scene, sequence: int) -> None:
    with refused(scene.plc, InvalidFrameError, "refused_invalid_frame"):
        scene.plc.open(scene.mallory.seal(b"x", scene.target, sequence=sequence))


def test_the_last_number_is_the_last(scene: Scene) -> None:
    """It shuts the door for mallory's own keys, and for nobody else."""
    last = (1 << 62) - 1
    assert scene.plc.open(scene.mallory.seal(b"x", scene.target, sequence=last)).sequence == last
    with pytest.raises(PqcIiotError):
        scene.plc.open(scene.mallory.seal(b"x", scene.target, sequence=last - 1))
    assert scene.plc.open(scene.sensor.seal(b"x", to="plc"))


@pytest.mark.parametrize(
    "edit",
    [
        lambda p: b"",
        lambda p: p[:-1],
        lambda p: p + b"\0",
        lambda p: p[:-666] + bytes(666),
        lambda p: p[:-670],
        lambda p: b"\x84\x40\xa0\x41" + p[4:],
        lambda p: b"\x84\x41\0\xa0" + p[3:],
        lambda p: b"\x84\x40\xa1\x01\x02" + p[3:],
        lambda p: b"\xd2" + p,
        lambda p: p.replace(b"\x59\x02\x9a", b"\x5a\x00\x00\x02\x9a"),
        lambda p: p.replace(b"\x59\x02\x9a", b"\x59\x02\x99"),
        lambda p: p.replace(b"\x59\x02\x9a", b"\x5b" + b"\xff" * 8),
        lambda p: p.replace(b"\x43abc", b"\x58\x03abc"),
        lambda p: p.replace(b"\x43abc", b"\x5b" + b"\xff" * 8 + b"abc"),
        lambda p: p.replace(b"\x43abc", b"\x63abc"),
        lambda p: p.replace(b"\x43abc", b"\x43abd"),
    ],
)
def test_an_approved_peer_signs_something_else(
    scene: Scene, edit: Callable[[bytes], bytes]
) -> None:
    frame = scene.mallory.seal(b"abc", scene.target, edit_plaintext=edit)
    with refused(scene.plc, AuthenticationError, "refused_authentication_failed"):
        scene.plc.open(frame)


@pytest.mark.parametrize(
    "edit",
    [
        lambda h, u, c: [dumps(h), u, c + b"\0"],
        lambda h, u, c: [dumps(h), u, b""],
        lambda h, u, c: [dumps(h), u, c.hex()],
        lambda h, u, c: [dumps(h), u | {-4: u[-4][:-1]}, c],
        lambda h, u, c: [dumps(h), u | {-4: u[-4] + b"\0"}, c],
        lambda h, u, c: [dumps(h), u | {-4: b""}, c],
        lambda h, u, c: [dumps(h), u | {-5: b""}, c],
        lambda h, u, c: [dumps(h), {}, c],
        lambda h, u, c: [dumps(h | {5: bytes(12)}), u, c],
        lambda h, u, c: [dumps({k: v for k, v in h.items() if k != -5}), u, c],
        lambda h, u, c: [dumps(h | {4: h[4][:7]}), u, c],
        lambda h, u, c: [dumps(h | {-5: h[-5] + b"\0"}), u, c],
        lambda h, u, c: [dumps(h | {-6: "1"}), u, c],
        lambda h, u, c: [dumps(h | {-6: -1}), u, c],
        lambda h, u, c: [dumps(h | {-6: 1.0}), u, c],
        lambda h, u, c: [dumps(h) + b"\0", u, c],
        lambda h, u, c: [b"", u, c],
        lambda h, u, c: [h, u, c],
        lambda h, u, c: [dumps(h), u],
        lambda h, u, c: [dumps(h), u, c, b""],
        lambda h, u, c: [dumps(h), u, c, [[b"", {}, c]]],
    ],
)
def test_other_shapes(scene: Scene, edit: Callable[..., object]) -> None:
    protected, unprotected, ciphertext = cbor2.loads(scene.sensor.seal(b"x", to="plc")).value
    message = edit(dict(cbor2.loads(protected)), dict(unprotected), ciphertext)
    frame = dumps(cbor2.CBORTag(16, message))
    before = seen_rows(scene.plc)
    with pytest.raises((InvalidFrameError, AuthenticationError)):
        scene.plc.open(frame)
    assert seen_rows(scene.plc) == before


def test_other_encodings_of_the_same_frame(scene: Scene) -> None:
    frame = scene.sensor.seal(b"x", to="plc")
    kid = scene.sensor.bundle.kid
    for other in (
        b"\xd8\x10" + frame[1:],  # the tag in two bytes
        frame[1:],  # no tag
        b"\xd9\xd9\xf7" + frame,
        frame.replace(b"\x48" + kid, b"\x58\x08" + kid),
        frame.replace(b"\x25\x01", b"\x25\x18\x01"),
        frame.replace(b"\x83\x58", b"\x9f\x58", 1) + b"\xff",
    ):
        assert other != frame
        with refused(scene.plc, InvalidFrameError, "refused_invalid_frame"):
            scene.plc.open(other)
    assert scene.plc.open(frame)


@pytest.fixture(scope="module", params=SUITES)
def captured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, bytes]]:
    """A receiver of each suite, and a frame for it that never arrived."""
    folder = tmp_path_factory.mktemp("captured")
    with make(folder, "a", request.param) as a, make(folder, "b", request.param) as b:
        introduce(a, b)
        yield b, a.seal(b"21.5", to="b", context="line1")
        assert seen_rows(b) == []


def test_every_byte_matters(captured: tuple[Node, bytes]) -> None:
    node, frame = captured
    data = bytearray(frame)
    for i, bit in itertools.product(range(len(data)), (1, 128)):
        data[i] ^= bit
        (result,) = node.open_many([Incoming(bytes(data), "line1")])
        assert isinstance(result, PqcIiotError), (i, bit)
        assert result.exit_code == 3
        data[i] ^= bit


def test_every_length_matters(captured: tuple[Node, bytes]) -> None:
    node, frame = captured
    cut = [frame[:i] for i in range(len(frame))] + [frame[i:] for i in range(1, 64)]
    more = [frame + extra for extra in (b"\0", b"\xff", frame, bytes(100_000))]
    for data in cut + more:
        (result,) = node.open_many([Incoming(data, "line1")])
        assert type(result) is InvalidFrameError


def test_parts_of_two_frames_make_none(pair: Pair) -> None:
    one, other = (cbor2.loads(pair.frame(text)).value for text in (b"1111", b"2222"))
    for choice in itertools.product((0, 1), repeat=3):
        message = [(one, other)[which][part] for part, which in enumerate(choice)]
        if choice in ((0, 0, 0), (1, 1, 1)):
            continue
        with refused(pair.plc, AuthenticationError, "refused_authentication_failed"):
            pair.plc.open(dumps(cbor2.CBORTag(16, message)), context="line1/temp")


def test_refusals_do_not_tell_which_check_failed(scene: Scene) -> None:
    frames = (
        scene.mallory.seal(b"x", scene.target, "a", signed_context="b"),  # the signature
        scene.mallory.seal(b"x", scene.target, "c"),  # the decryption
        scene.mallory.seal(b"x", scene.target, "a", edit_plaintext=lambda p: p[:9]),  # the form
    )
    texts = set()
    for frame in frames:
        with pytest.raises(AuthenticationError) as caught:
            scene.plc.open(frame, context="a")
        texts.add((str(caught.value), caught.value.hint, caught.value.code))
    assert len(texts) == 1
    forged = [event for event in events(scene.plc) if event.reason == "authentication_failed"]
    assert len({event.severity for event in forged}) == 1


def test_unknown_senders_cost_no_memory(pair: Pair) -> None:
    stranger = Foreign(1, "stranger")
    target = ForeignPeer.of(pair.plc.bundle.encoded)
    template = bytearray(stranger.seal(b"x", target))
    at = bytes(template).index(stranger.fingerprint[:8])
    frames = []
    for number in range(3000):
        template[at : at + 8] = number.to_bytes(8, "big")
        frames.append(Incoming(bytes(template), ""))
    results = pair.plc.open_many(frames)
    assert {type(result) for result in results} == {UnknownPeerError}
    assert pair.plc.peers.counts() == (1, 0)
    keystore, freshness = pair.plc._keystore, pair.plc._freshness
    assert len(keystore._by_kid) <= 1
    assert not freshness._seen


def test_unknown_sender_error_leads_to_approval(pair: Pair, tmp_path: Path) -> None:
    with make(tmp_path, "new") as new:
        new.peers.add_approved(pair.plc.bundle)
        frame = new.seal(b"x", to="plc")
        with pytest.raises(UnknownPeerError) as caught:
            pair.plc.open(frame)
        assert "pqc-iiot peer add" in caught.value.hint
        pair.plc.peers.add(new.bundle)
        with pytest.raises(UnknownPeerError) as caught:
            pair.plc.open(frame)
        assert new.bundle.name in str(caught.value)
        command = caught.value.hint.rpartition("pqc-iiot ")[2].split()
        assert command[:2] == ["peer", "approve"]
        assert bytes.fromhex(command[2]) == new.bundle.fingerprint
        pair.plc.peers.approve(command[2])
        assert pair.plc.open(frame).sender == "new"


def test_a_duplicate_costs_no_decryption(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pair.frame()
    pair.plc.open(frame, context="line1/temp")
    monkeypatch.setattr("pqc_iiot.reception.envelope.open_", None)
    with pytest.raises(DuplicateError):
        pair.plc.open(frame, context="line1/temp")


def test_a_refusal_names_transport_and_length(pair: Pair) -> None:
    (error,) = pair.plc.open_many([Incoming(b"garbage", "line1/temp", transport="mqtt")])
    assert isinstance(error, InvalidFrameError)
    (record,) = events(pair.plc)[-1:]
    assert (record.detail["transport"], record.detail["length"]) == ("mqtt", 7)
    pair.plc.open_many([Incoming(b"garbage", "line1/temp")])
    assert "transport" not in events(pair.plc)[-1].detail
