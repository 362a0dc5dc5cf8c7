"""Writes envelope.json: frames and bundles that another implementation can read.

    python vectors/generate_envelope.py

Signing and encapsulation are random, so each run records other bytes; what they mean stays
the same. Recipients' KEM keys are made from the seeds that the file gives, so a frame can be
opened from the file alone. Signature keys are made for one run and thrown away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from pqc_iiot import Bundle, _core
from pqc_iiot.bundle import make_bundle
from pqc_iiot.envelope import encode_context
from pqc_iiot.primitives import public_key
from pqc_iiot.providers import Custody, KeySet, open_provider
from pqc_iiot.suites import SUITES, Suite, get_suite

FILE = Path(__file__).with_name("envelope.json")
SEED_SIZES = {0x0041: 64, 0x0042: 64, 0x0050: 32, 0x0051: 32, 0x647A: 32}
Case = dict[str, object]

_provider = open_provider("software:insecure-plaintext-keys")


class SeededKeys(KeySet):
    """A KEM key from a seed, beside a signature key of this run."""

    kem_custody = sig_custody = Custody.SOFTWARE

    def __init__(self, suite: Suite, label: str) -> None:
        self.suite = suite
        size = SEED_SIZES[suite.kem.id]
        self.seed = hashlib.shake_256(f"pqc-iiot {label} {suite.id}".encode()).digest(size)
        self._signer = _provider.generate(suite)[0]

    @property
    def kem_public_key(self) -> bytes:
        """Of the seed."""
        return public_key(self.suite.kem, self.seed)

    @property
    def sig_public_key(self) -> bytes:
        """Of this run."""
        return self._signer.sig_public_key

    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """With the seed."""
        return _core.hpke_open((self.suite.kem.id, 0x11, 2), self.seed, enc, info, aad, ciphertext)

    def sign(self, message: bytes) -> bytes:
        """With the key of this run."""
        return self._signer.sign(message)


class Sender:
    """A sender that signs and encrypts whatever it is told, step by step."""

    def __init__(self, suite: Suite, name: str) -> None:
        self.keys = SeededKeys(suite, name)
        self.bundle = make_bundle(name, self.keys, 1)

    def seal(
        self,
        recipient: Bundle,
        sequence: int,
        context: str,
        payload: bytes,
        *,
        kid: bytes = b"",
        alg: int = 0,
        signed_for: bytes = b"",
        signed_context: str | None = None,
        cut: int = 0,
    ) -> bytes:
        """A frame; the keywords are lies."""
        suite = recipient.suite
        protected = _core.envelope_protected(
            alg or suite.alg, recipient.kid, kid or self.bundle.kid, sequence
        )
        signature = self.keys.sign(
            _core.envelope_to_be_signed(
                protected,
                signed_for or recipient.fingerprint,
                self.bundle.fingerprint,
                encode_context(context if signed_context is None else signed_context),
                payload,
            )
        )
        enc, ciphertext = _core.KemPublicKey(suite.kem.id, recipient.kem_public_key).hpke_seal(
            b"",
            _core.envelope_aad(protected, encode_context(context)),
            _core.envelope_plaintext(payload, signature[: len(signature) - cut]),
        )
        return _core.envelope_frame(protected, enc, ciphertext)


def valid(sender: Sender, recipient: Bundle) -> Iterator[Case]:
    """Frames that open."""
    for comment, sequence, context, payload in (
        ("the shortest", 1, "", b""),
        ("a reading", 24, "line1/setpoint", b"21.5"),
        ("a context beyond ASCII", 65536, "Halle 3/Kühlung", bytes(range(256))),
        ("the highest number", (1 << 62) - 1, "line1", b"\x00" * 24),
    ):
        frame = sender.seal(recipient, sequence, context, payload)
        yield {
            "comment": comment,
            "context": context,
            "frame": frame.hex(),
            "sequence": sequence,
            "payload": payload.hex(),
        }


def invalid(sender: Sender, recipient: Bundle, other: Sender) -> Iterator[Case]:
    """Frames that do not, each for one reason."""

    def case(comment: str, error: str, frame: bytes, context: str = "line1") -> Case:
        return {"comment": comment, "context": context, "frame": frame.hex(), "error": error}

    good = sender.seal(recipient, 7, "line1", b"21.5")
    suites = sorted(SUITES)
    yield case("another context", "authentication_failed", good, "line2")
    yield case("the last bit", "authentication_failed", good[:-1] + bytes([good[-1] ^ 1]))
    yield case(
        "signed by an approved peer under another peer's key id",
        "authentication_failed",
        other.seal(recipient, 7, "line1", b"21.5", kid=sender.bundle.kid),
    )
    yield case(
        "signed for another recipient",
        "authentication_failed",
        sender.seal(recipient, 7, "line1", b"21.5", signed_for=sender.bundle.fingerprint),
    )
    yield case(
        "signed in another context than encrypted in",
        "authentication_failed",
        sender.seal(recipient, 7, "line1", b"21.5", signed_context="line2"),
    )
    yield case(
        "a signature without its last byte",
        "authentication_failed",
        sender.seal(recipient, 7, "line1", b"21.5", cut=1),
    )
    yield case("for the sender itself", "wrong_recipient", sender.seal(sender.bundle, 7, "", b""))
    yield case("from a stranger", "unknown_peer", sender.seal(recipient, 7, "", b"", kid=bytes(8)))
    yield case("number 0", "invalid_frame", sender.seal(recipient, 0, "line1", b""))
    yield case("number 2^62", "invalid_frame", sender.seal(recipient, 1 << 62, "line1", b""))
    yield case(
        "a suite that does not exist",
        "invalid_frame",
        sender.seal(recipient, 7, "line1", b"", alg=-65792 - suites[-1] - 1),
    )
    yield case("a byte more", "invalid_frame", good + b"\0")
    yield case("a byte less", "invalid_frame", good[:-1])
    yield case("a number in a longer form", "invalid_frame", longer_number(good))
    yield case("nothing", "invalid_frame", b"")


def longer_number(frame: bytes) -> bytes:
    """The same frame with its number, 7, in two bytes: not the shortest encoding."""
    at = frame.index(b"\x25\x07\xa1")
    return frame[:3] + bytes([frame[3] + 1]) + frame[4:at] + b"\x25\x18\x07" + frame[at + 2 :]


def bundle_case(comment: str, bundle: Bundle) -> Case:
    """What a bundle says."""
    return {
        "comment": comment,
        "bundle": bundle.encoded.hex(),
        "name": bundle.name,
        "suite": bundle.suite.id,
        "serial": bundle.serial,
        "fingerprint": bundle.fingerprint.hex(),
        "previous": bundle.previous.hex() if bundle.previous else None,
    }


def generate() -> Case:
    """All of it."""
    suites, bundles = [], []
    for suite in SUITES.values():
        sender, other, recipient = (Sender(suite, name) for name in ("sensor", "other", "plc"))
        frames = [*valid(sender, recipient.bundle)]
        bad = [*invalid(sender, recipient.bundle, other)]
        # The reasons do not depend on the suite: all of them once, the first two always.
        frames += bad if suite.id == 1 else bad[:2]
        suites.append(
            {
                "suite": suite.id,
                "name": suite.name,
                "kem_seed": recipient.keys.seed.hex(),
                "recipient": recipient.bundle.encoded.hex(),
                "senders": [sender.bundle.encoded.hex(), other.bundle.encoded.hex()],
                "frames": frames,
            }
        )
        bundles.append(bundle_case("the first key set", sender.bundle))
    keys = SeededKeys(get_suite(5), "rotated")
    rotated = make_bundle(sender.bundle.name, keys, 2, (sender.bundle, sender.keys))
    bundles.append(bundle_case("a successor of the one before", rotated))
    broken = bytearray(rotated.encoded)
    broken[40] ^= 1
    bundles.append({"comment": "a bit", "bundle": broken.hex(), "error": "invalid_bundle"})
    return {
        "description": "Envelopes and bundles of docs/protocol.md. Frames are for `recipient`,"
        " whose KEM key is made from `kem_seed`; it has approved `senders` and seen nothing"
        " yet. Each frame either gives `sequence` and `payload`, or is refused with `error`.",
        "suites": suites,
        "bundles": bundles,
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(generate(), indent=1, ensure_ascii=False) + "\n")
