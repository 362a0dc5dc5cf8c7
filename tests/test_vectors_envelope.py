"""The recorded frames and bundles of vectors/: read by a node, and without our code."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM1024P384PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import mlkem768_p256
from devices import make
from foreign import Foreign, ForeignPeer
from pqc_iiot import InvalidBundleError, Message, Node, PqcIiotError, _core
from pqc_iiot.bundle import endorsed_by, parse_bundle
from pqc_iiot.identity import OwnKeys
from pqc_iiot.primitives import public_key
from pqc_iiot.providers import Custody, KeySet
from pqc_iiot.suites import SUITES, get_suite

FOLDER = Path(__file__).resolve().parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "envelope.json").read_text())
by_suite = pytest.mark.parametrize("vectors", VECTORS["suites"], ids=lambda v: str(v["suite"]))


class Recorded(KeySet):
    """The recipient's keys, as far as the vectors give them: they open, and sign nothing."""

    kem_custody = sig_custody = Custody.SOFTWARE

    def __init__(self, vectors: dict[str, Any]) -> None:
        self.suite = get_suite(vectors["suite"])
        self.seed = bytes.fromhex(vectors["kem_seed"])
        self.bundle = parse_bundle(bytes.fromhex(vectors["recipient"]))

    @property
    def kem_public_key(self) -> bytes:
        return public_key(self.suite.kem, self.seed)

    @property
    def sig_public_key(self) -> bytes:
        return self.bundle.sig_public_key

    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        return _core.hpke_open((self.suite.kem.id, 0x11, 2), self.seed, enc, info, aad, ciphertext)

    def sign(self, message: bytes) -> bytes:
        raise NotImplementedError


def recipient(folder: Path, vectors: dict[str, Any]) -> Node:
    """A new node with the recorded keys in place of its own."""
    node = make(folder, "plc", vectors["suite"])
    keys = Recorded(vectors)
    assert keys.kem_public_key == keys.bundle.kem_public_key
    own = OwnKeys(keys, keys.bundle, b"")
    node._reception.identity = dataclasses.replace(node._reception.identity, current=own)
    for bundle in vectors["senders"]:
        node.peers.add_approved(bytes.fromhex(bundle))
    return node


def read(node: Node, case: dict[str, Any]) -> Message | str:
    """The message, or the code of the refusal."""
    try:
        return node.open(bytes.fromhex(case["frame"]), context=case["context"])
    except PqcIiotError as error:
        return error.code


@by_suite
def test_a_node_reads_them(tmp_path: Path, vectors: dict[str, Any]) -> None:
    sender = parse_bundle(bytes.fromhex(vectors["senders"][0])).fingerprint
    for number, case in enumerate(vectors["frames"]):
        with recipient(tmp_path / str(number), vectors) as node:
            found = read(node, case)
        if "error" in case:
            assert found == case["error"], case["comment"]
        else:
            payload = bytes.fromhex(case["payload"])
            assert found == Message("sensor", case["sequence"], payload, case["context"], sender)
    errors = {case.get("error") for case in vectors["frames"]}
    assert "authentication_failed" in errors
    assert vectors["suite"] > 1 or errors >= {"invalid_frame", "unknown_peer", "wrong_recipient"}


def kem_key(suite: int, seed: bytes) -> tuple[Any, bytes]:
    """A KEM key from its seed, with pyca alone."""
    if suite == 6:
        key = mlkem768_p256.PrivateKey.from_seed(seed)
        return key, key.public
    if suite in (1, 2):  # the seed is expanded, draft-ietf-hpke-pq
        seed = hashlib.shake_256(seed).digest(112)
    if suite in (1, 3, 7):
        small = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed[:64])
        public = small.public_key().public_bytes_raw()
        if suite != 1:
            return small, public
        curve = x25519.X25519PrivateKey.from_private_bytes(seed[64:96])
        return (
            MLKEM768X25519PrivateKey(small, curve),
            public + curve.public_key().public_bytes_raw(),
        )
    large = mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed[:64])
    public = large.public_key().public_bytes_raw()
    if suite != 2:
        return large, public
    point = ec.derive_private_key(int.from_bytes(seed[64:112], "big"), ec.SECP384R1())
    encoded = point.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return MLKEM1024P384PrivateKey(large, point), public + encoded


@by_suite
def test_an_independent_device_reads_them(vectors: dict[str, Any]) -> None:
    device = Foreign(vectors["suite"])
    device.kem_key, device.kem = kem_key(vectors["suite"], bytes.fromhex(vectors["kem_seed"]))
    own = ForeignPeer.of(bytes.fromhex(vectors["recipient"]))
    device.sig = own.sig
    assert device.fingerprint == own.fingerprint
    sender = ForeignPeer.of(bytes.fromhex(vectors["senders"][0]))
    for case in vectors["frames"]:
        frame = bytes.fromhex(case["frame"])
        if "payload" in case:
            found = device.open(frame, sender, case["context"])
            assert found == (case["sequence"], bytes.fromhex(case["payload"]))
        elif case["error"] == "authentication_failed":
            with pytest.raises(Exception):  # noqa: B017, PT011 - whatever that library raises
                device.open(frame, sender, case["context"])


def test_bundles() -> None:
    assert len(VECTORS["bundles"]) == len(SUITES) + 2
    before = None
    for case in VECTORS["bundles"]:
        data = bytes.fromhex(case["bundle"])
        if "error" in case:
            with pytest.raises(InvalidBundleError) as caught:
                parse_bundle(data)
            assert caught.value.code == case["error"]
            continue
        bundle = parse_bundle(data)
        assert (bundle.name, bundle.suite.id, bundle.serial) == (
            case["name"],
            case["suite"],
            case["serial"],
        )
        assert bundle.fingerprint.hex() == case["fingerprint"]
        assert ForeignPeer.of(data).fingerprint == bundle.fingerprint
        if case["previous"]:
            assert before is not None
            assert bundle.previous == before.fingerprint == bytes.fromhex(case["previous"])
            assert endorsed_by(bundle, before)
        before = bundle


def test_the_generator_still_says_the_same() -> None:
    """Its bytes are new each time; what they are to mean is not."""
    spec = importlib.util.spec_from_file_location("generator", FOLDER / "generate_envelope.py")
    assert spec
    assert spec.loader
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert shape(generator.generate()) == shape(VECTORS)


def shape(value: object, key: str = "") -> object:
    """Everything but the random bytes."""
    if isinstance(value, dict):
        return {name: shape(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item, key) for item in value]
    random = ("frame", "bundle", "recipient", "senders", "fingerprint", "previous")
    return len(value) if isinstance(value, str) and key in random else value
