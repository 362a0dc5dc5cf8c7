"""A device that shares no code with ours: written from docs/protocol.md, on cbor2, pyca's
HPKE and ML-DSA, and PQClean's round-3 Falcon. It can do wrong whatever one can do wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    MLKEM1024P384PrivateKey,
    MLKEM1024P384PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pqcrypto.sign import falcon_padded_512, falcon_padded_1024

import mlkem768_p256

Message = list[Any]
"""An envelope taken apart: protected, unprotected, ciphertext."""


def dumps(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def _falcon(module: Any) -> tuple[bytes, Callable[[bytes], bytes]]:
    public, private = module.generate_keypair()
    return public, lambda message: bytes(module.sign(private, message))


def _ml_dsa(kind: Any) -> tuple[bytes, Callable[[bytes], bytes]]:
    key = kind.generate()
    return key.public_key().public_bytes_raw(), key.sign


def _verify_ml_dsa(public: bytes, message: bytes, signature: bytes) -> bool:
    kind = MLDSA65PublicKey if len(public) == 1952 else MLDSA87PublicKey
    kind.from_public_bytes(public).verify(signature, message)
    return True


SIGNATURES: dict[int, tuple[Callable[[], Any], Callable[[bytes, bytes, bytes], bool]]] = {
    -65601: (lambda: _falcon(falcon_padded_512), falcon_padded_512.verify),
    -65602: (lambda: _falcon(falcon_padded_1024), falcon_padded_1024.verify),
    -65603: (mlkem768_p256.composite_key, mlkem768_p256.composite_verify),
    -49: (lambda: _ml_dsa(MLDSA65PrivateKey), _verify_ml_dsa),
    -50: (lambda: _ml_dsa(MLDSA87PrivateKey), _verify_ml_dsa),
}


def _x_wing() -> tuple[Any, bytes]:
    one, other = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    public = one.public_key().public_bytes_raw() + other.public_key().public_bytes_raw()
    return MLKEM768X25519PrivateKey(one, other), public


def _with_p384() -> tuple[Any, bytes]:
    one, other = mlkem.MLKEM1024PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())
    point = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return MLKEM1024P384PrivateKey(one, other), one.public_key().public_bytes_raw() + point


def _with_p256() -> tuple[Any, bytes]:
    key = mlkem768_p256.PrivateKey.generate()
    return key, key.public


def _ml_kem(kind: Any) -> tuple[Any, bytes]:
    key = kind.generate()
    return key, key.public_key().public_bytes_raw()


def _x_wing_public(data: bytes) -> Any:
    return MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(data[:1184]),
        x25519.X25519PublicKey.from_public_bytes(data[1184:]),
    )


def _with_p384_public(data: bytes) -> Any:
    return MLKEM1024P384PublicKey(
        mlkem.MLKEM1024PublicKey.from_public_bytes(data[:1568]),
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), data[1568:]),
    )


@dataclass(frozen=True)
class Algorithms:
    """One row of the table of suites."""

    sig: int
    hpke_kem: Any
    enc_size: int
    new_kem_key: Callable[[], tuple[Any, bytes]]
    kem_public: Callable[[bytes], Any]

    def seal(self, public: bytes, plaintext: bytes, aad: bytes) -> bytes:
        if self.hpke_kem is None:
            return mlkem768_p256.seal(public, plaintext, b"", aad)
        suite, key = self._suite, self.kem_public(public)
        return openssl.hpke._encrypt_with_aad(suite, plaintext, key, b"", aad)

    def open(self, key: Any, sealed: bytes, aad: bytes) -> bytes:
        if self.hpke_kem is None:
            opened: bytes = key.open(sealed, b"", aad)
            return opened
        return openssl.hpke._decrypt_with_aad(self._suite, sealed, key, b"", aad)

    @property
    def _suite(self) -> Suite:
        return Suite(self.hpke_kem, KDF.SHAKE256, AEAD.AES_256_GCM)


_768, _1024 = mlkem.MLKEM768PublicKey.from_public_bytes, mlkem.MLKEM1024PublicKey.from_public_bytes
SUITES = {
    1: Algorithms(-65601, KEM.MLKEM768_X25519, 1120, _x_wing, _x_wing_public),
    2: Algorithms(-65602, KEM.MLKEM1024_P384, 1665, _with_p384, _with_p384_public),
    3: Algorithms(-65601, KEM.MLKEM768, 1088, lambda: _ml_kem(mlkem.MLKEM768PrivateKey), _768),
    4: Algorithms(-65601, KEM.MLKEM1024, 1568, lambda: _ml_kem(mlkem.MLKEM1024PrivateKey), _1024),
    5: Algorithms(-50, KEM.MLKEM1024, 1568, lambda: _ml_kem(mlkem.MLKEM1024PrivateKey), _1024),
    6: Algorithms(-65603, None, 1153, _with_p256, bytes),
    7: Algorithms(-49, KEM.MLKEM768, 1088, lambda: _ml_kem(mlkem.MLKEM768PrivateKey), _768),
}


@dataclass
class ForeignPeer:
    """What a bundle says, read and verified without our code."""

    name: str
    suite: int
    sig: bytes
    kem: bytes
    fingerprint: bytes

    @classmethod
    def of(cls, bundle: bytes) -> ForeignPeer:
        tag = cbor2.loads(bundle)
        assert tag.tag == 98
        protected, unprotected, payload, signatures = tag.value
        assert (protected, dict(unprotected)) == (b"", {})
        claims = cbor2.loads(payload)
        sig, kem = claims[-65538]
        fingerprint = hashlib.sha256(dumps([sig, kem])).digest()
        header, _, signature = signatures[0]
        assert cbor2.loads(header) == {1: sig[3], 4: fingerprint[:8]}
        structure = dumps(["Signature", b"", header, b"pqc-iiot bundle v1", payload])
        assert SIGNATURES[sig[3]][1](sig[-1], structure, signature)
        return cls(claims[2], -65792 - kem[3], sig[-1], kem[-1], fingerprint)


@dataclass
class Foreign:
    """A device of our protocol that is not ours."""

    suite: int
    name: str = "foreign"
    serial: int = 1
    sequence: int = 0
    sig: bytes = field(init=False)
    kem: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.algorithms = SUITES[self.suite]
        self.sig, self.sign = SIGNATURES[self.algorithms.sig][0]()
        self.kem_key, self.kem = self.algorithms.new_kem_key()

    @property
    def keys(self) -> list[dict[int, int | bytes]]:
        return [
            {1: 7, 3: self.algorithms.sig, -1: self.sig},
            {1: 7, 3: -65792 - self.suite, -1: self.kem},
        ]

    @property
    def fingerprint(self) -> bytes:
        return hashlib.sha256(dumps(self.keys)).digest()

    def endorse(self, payload: bytes) -> list[Any]:
        protected = dumps({1: self.algorithms.sig, 4: self.fingerprint[:8]})
        structure = dumps(["Signature", b"", protected, b"pqc-iiot bundle v1", payload])
        return [protected, {}, self.sign(structure)]

    def bundle(self, before: Foreign | None = None) -> bytes:
        claims: dict[int, object] = {2: self.name, -65537: self.serial, -65538: self.keys}
        if before:
            claims[-65539] = before.fingerprint
        payload = dumps(claims)
        signatures = [device.endorse(payload) for device in (self, before) if device]
        return dumps(cbor2.CBORTag(98, [b"", {}, payload, signatures]))

    def seal(
        self,
        payload: bytes,
        to: ForeignPeer,
        context: str = "",
        *,
        sequence: int | None = None,
        alg: int | None = None,
        sender_kid: bytes = b"",
        recipient_kid: bytes = b"",
        sender: bytes = b"",
        recipient: bytes = b"",
        signed_context: str | None = None,
        edit_plaintext: Callable[[bytes], bytes] = lambda plaintext: plaintext,
    ) -> bytes:
        """A frame; every keyword tells a lie that a genuine sender does not tell."""
        self.sequence += 1
        protected = dumps(
            {
                1: -65792 - to.suite if alg is None else alg,
                4: recipient_kid or to.fingerprint[:8],
                -5: sender_kid or self.fingerprint[:8],
                -6: self.sequence if sequence is None else sequence,
            }
        )
        external_aad = dumps(
            [
                "pqc-iiot envelope v1",
                protected,
                recipient or to.fingerprint,
                sender or self.fingerprint,
                (context if signed_context is None else signed_context).encode(),
            ]
        )
        signature = self.sign(dumps(["Signature1", b"", external_aad, payload]))
        plaintext = edit_plaintext(dumps([b"", {}, payload, signature]))
        algorithms = SUITES[to.suite]
        aad = dumps(["Encrypt0", protected, context.encode()])
        sealed = algorithms.seal(to.kem, plaintext, aad)
        enc, ciphertext = sealed[: algorithms.enc_size], sealed[algorithms.enc_size :]
        return dumps(cbor2.CBORTag(16, [protected, {-4: enc}, ciphertext]))

    def open(self, frame: bytes, sender: ForeignPeer, context: str = "") -> tuple[int, bytes]:
        """The number and the payload of a frame; every deviation fails an assertion."""
        tag = cbor2.loads(frame)
        assert tag.tag == 16
        protected, unprotected, ciphertext = tag.value
        header = dict(cbor2.loads(protected))
        assert list(header) == [1, 4, -5, -6]
        assert header[1] == -65792 - self.suite
        assert (header[4], header[-5]) == (self.fingerprint[:8], sender.fingerprint[:8])
        assert list(unprotected) == [-4]
        aad = dumps(["Encrypt0", protected, context.encode()])
        plaintext = self.algorithms.open(self.kem_key, unprotected[-4] + ciphertext, aad)
        start, empty, payload, signature = cbor2.loads(plaintext)
        assert (start, dict(empty)) == (b"", {})
        external_aad = dumps(
            [
                "pqc-iiot envelope v1",
                protected,
                self.fingerprint,
                sender.fingerprint,
                context.encode(),
            ]
        )
        structure = dumps(["Signature1", b"", external_aad, payload])
        verify = SIGNATURES[SUITES[sender.suite].sig][1]
        assert verify(sender.sig, structure, signature)
        assert frame == dumps(cbor2.CBORTag(16, [protected, {-4: unprotected[-4]}, ciphertext]))
        assert plaintext == dumps([b"", {}, payload, signature])
        return header[-6], payload
