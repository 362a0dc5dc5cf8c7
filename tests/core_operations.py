"""Every operation of the core by its name, ready to be called."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator

from pqc_iiot import _core
from pqc_iiot._core import (
    HandshakeInitiator,
    HandshakeResponder,
    KemPrivateKey,
    KemPublicKey,
    Secret,
    Session,
    SigPrivateKey,
    SigPublicKey,
    SplitKemPrivateKey,
)
from pqc_iiot.errors import AuthenticationError
from pqc_iiot.suites import FALCON_512, ML_KEM_768, ML_KEM_768_P256, SUITES

POINT = bytes.fromhex(
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
"""P-256's generator (SEC 2)."""

STILL_WORKS = {
    # Encodings, without keys or secrets.
    "EnvelopeHeader", "EnvelopeHeader.aad", "envelope_aad", "envelope_frame",
    "envelope_plaintext", "envelope_protected", "envelope_to_be_signed",
    # Hashes of the audit log, which must still tell of the failure.
    "merkle_follow", "merkle_root",
    # What is told of the process.
    "fail_closed", "memory_stats", "operations",
    # Wiping.
    "Session.close",
}  # fmt: skip


def operations() -> dict[str, Callable[[], object]]:
    """Every function, constructor and method of the core that does something, by name."""
    kek, secret = Secret.random(), Secret.random()
    kem = KemPrivateKey.generate(ML_KEM_768.id)
    kem_public = KemPublicKey(kem.kem_id, kem.public_key)
    enc, ciphertext = kem_public.hpke_seal(b"", b"", b"payload")
    sig = SigPrivateKey.generate(FALCON_512.id)
    public_key = sig.public_key
    sig_public = SigPublicKey(sig.sig_id, public_key)
    signature, tag = sig.sign(b"message"), secret.mac(b"data")
    wrapped, wrapped_kem = kek.wrap(b"", secret), kek.wrap_kem(b"", kem)
    encrypted = kek.encrypt(b"", b"data")
    wrapped_sig = kek.wrap_sig(b"", sig)
    protected = _core.envelope_protected(SUITES[3].alg, bytes(8), bytes(8), 1)
    header = _core.EnvelopeHeader(
        _core.envelope_frame(protected, enc, ciphertext), {SUITES[3].alg: SUITES[3]}
    )
    signed = sig.sign(_core.envelope_to_be_signed(protected, bytes(32), bytes(32), b"\x40", b""))
    plaintext = _core.envelope_plaintext(b"", signed)
    suite, seed = (kem.kem_id, 0x11, 2), bytes(64)
    seed_public_key = _core.kem_public_key(kem.kem_id, seed)
    sealed = _core.hpke_seal(suite, seed_public_key, b"", b"", b"payload")
    fd = os.open(__file__, os.O_RDONLY)
    split = SplitKemPrivateKey(ML_KEM_768_P256.id, kem, POINT)
    split_enc = bytes(ML_KEM_768.ciphertext_size) + POINT
    initiator, responder = sessions()
    packet, genuine, more = (initiator.seal(b"topic", b"payload") for _ in range(3))
    return {
        "argon2id": lambda: _core.argon2id(secret, bytes(16), 64, 1, 1),
        "composite_message": lambda: _core.composite_message(b""),
        "ecdsa_verify": lambda: _core.ecdsa_verify(POINT, b"", bytes(64)),
        "hpke_open_with": lambda: fails_to_open(
            _core.hpke_open_with, ML_KEM_768.id, secret, enc, b"", b"", ciphertext
        ),
        "hpke_open": lambda: _core.hpke_open(suite, seed, sealed[0], b"", b"", sealed[1]),
        "hpke_seal": lambda: _core.hpke_seal(suite, seed_public_key, b"", b"", b""),
        "kem_decapsulate": lambda: _core.kem_decapsulate(ML_KEM_768.id, seed, enc),
        "kem_encapsulate": lambda: _core.kem_encapsulate(ML_KEM_768.id, seed_public_key),
        "kem_public_key": lambda: _core.kem_public_key(ML_KEM_768.id, seed),
        "measure": lambda: _core.measure("SHAKE256 128", 1, 1),
        "self_test": _core.self_test,
        "EnvelopeHeader.verify": lambda: header.verify(
            sig_public, bytes(32), bytes(32), b"\x40", plaintext
        ),
        **handshakes(),
        "KemPrivateKey.generate": lambda: KemPrivateKey.generate(kem.kem_id),
        "KemPrivateKey.hpke_open": lambda: kem.hpke_open(enc, b"", b"", ciphertext),
        "KemPrivateKey.public_key": lambda: kem.public_key,
        "KemPublicKey": lambda: KemPublicKey(ML_KEM_768.id, seed_public_key),
        "KemPublicKey.hpke_seal": lambda: kem_public.hpke_seal(b"", b"", b""),
        "Secret.derive": lambda: secret.derive(b""),
        "Secret.mac": lambda: secret.mac(b""),
        "Secret.random": Secret.random,
        "Secret.read_fd": lambda: Secret.read_fd(fd, line=True),
        "Secret.take": lambda: Secret.take(bytearray(32)),
        "Secret.decrypt": lambda: kek.decrypt(b"", encrypted),
        "Secret.encrypt": lambda: kek.encrypt(b"", b"data"),
        "Secret.unwrap": lambda: kek.unwrap(b"", wrapped),
        "Secret.unwrap_kem": lambda: kek.unwrap_kem(b"", ML_KEM_768.id, wrapped_kem),
        "Secret.unwrap_sig": lambda: kek.unwrap_sig(b"", FALCON_512.id, wrapped_sig),
        "Secret.verify_mac": lambda: secret.verify_mac(b"data", tag),
        "Secret.wrap": lambda: kek.wrap(b"", secret),
        "Secret.wrap_kem": lambda: kek.wrap_kem(b"", kem),
        "Secret.wrap_sig": lambda: kek.wrap_sig(b"", sig),
        "Session.export": lambda: initiator.export(32768, b"", 32),
        "Session.open": lambda: responder.open(b"topic", packet),
        "Session.open_genuine": lambda: responder.open_genuine(b"topic", genuine),
        "Session.open_many": lambda: responder.open_many([b"topic"], [more]),
        "Session.received": responder.received,
        "Session.seal": lambda: initiator.seal(b"topic", b"payload"),
        "Session.seal_many": lambda: initiator.seal_many([b"topic"], [b"payload"]),
        "SigPrivateKey.generate": lambda: SigPrivateKey.generate(FALCON_512.id),
        "SigPrivateKey.public_key": lambda: sig.public_key,
        "SigPrivateKey.sign": lambda: sig.sign(b""),
        "SigPublicKey": lambda: SigPublicKey(FALCON_512.id, public_key),
        "SigPublicKey.verify": lambda: sig_public.verify(b"message", signature),
        "SplitKemPrivateKey": lambda: SplitKemPrivateKey(ML_KEM_768_P256.id, kem, POINT),
        "SplitKemPrivateKey.classical_share_point": lambda: split.classical_share_point(split_enc),
        "SplitKemPrivateKey.hpke_open_shared": lambda: fails_to_open(
            split.hpke_open_shared, split_enc, b"", b"", ciphertext, secret
        ),
        "SplitKemPrivateKey.public_key": lambda: split.public_key,
    }


def fails_to_open(operation: Callable[..., object], *arguments: object) -> None:
    """With a secret that is not the right one an operation that works refuses quietly."""
    with contextlib.suppress(AuthenticationError):
        operation(*arguments)


class Handshake:
    """A handshake with itself, step by step."""

    own = b"\xa1\x04\x41a", b"\x41a"
    peer = b"\xa1\x04\x41b", b"\x41b"

    def __init__(self) -> None:
        self.key = SigPrivateKey.generate(FALCON_512.id)
        self.public = SigPublicKey(FALCON_512.id, self.key.public_key)
        self.initiator = HandshakeInitiator(-24, b"\0\0\0\1", self.own, self.peer)
        self.responder = self.respond()
        self.signature_2 = self.key.sign(self.responder.to_be_signed)

    def respond(self) -> HandshakeResponder:
        return HandshakeResponder(-24, self.initiator.message_1, b"\0\0\0\2", self.peer)

    def to_message_2(self) -> bytes:
        return self.responder.message_2(self.signature_2)

    def to_signature_3(self) -> bytes:
        return self.key.sign(self.initiator.read_message_2(self.to_message_2(), self.public))

    def to_message_3(self) -> bytes:
        return self.initiator.message_3(self.to_signature_3())

    def to_message_4(self) -> tuple[bytes, Session]:
        message_3 = self.to_message_3()
        return self.responder.read_message_3(message_3, self.own, self.public, 0)


def sessions() -> tuple[Session, Session]:
    """Both ends of one."""
    handshake = Handshake()
    message_4, responder = handshake.to_message_4()
    return handshake.initiator.read_message_4(message_4, 0), responder


def handshakes() -> dict[str, Callable[[], object]]:
    """Each step of its own handshake."""
    begin, *at = (Handshake() for _ in range(6))
    message_2, signature_3 = at[1].to_message_2(), at[2].to_signature_3()
    message_3, (message_4, _) = at[3].to_message_3(), at[4].to_message_4()
    return {
        "HandshakeInitiator": lambda: HandshakeInitiator(-24, bytes(4), begin.own, begin.peer),
        "HandshakeInitiator.read_message_2": lambda: at[1].initiator.read_message_2(
            message_2, at[1].public
        ),
        "HandshakeInitiator.message_3": lambda: at[2].initiator.message_3(signature_3),
        "HandshakeInitiator.read_message_4": lambda: at[4].initiator.read_message_4(message_4, 0),
        "HandshakeResponder": begin.respond,
        "HandshakeResponder.message_2": at[0].to_message_2,
        "HandshakeResponder.read_message_3": lambda: at[3].responder.read_message_3(
            message_3, begin.own, at[3].public, 0
        ),
    }


def names() -> Iterator[str]:
    """What the module has: functions, constructors, methods; numbers of keys left out."""
    for name in _core.__all__:
        value = getattr(_core, name)
        if not inspect.isclass(value):
            yield name
            continue
        try:
            value()
        except TypeError as error:
            if "required positional argument" in str(error):
                yield name  # The others have no constructor.
        for member in dir(value):
            operates = member == "public_key" or callable(getattr(value, member))
            if operates and not member.startswith("_"):
                yield f"{name}.{member}"
