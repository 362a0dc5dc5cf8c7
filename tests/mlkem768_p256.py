"""MLKEM768-P256, its HPKE, and Falcon-512 with ECDSA-P256, written from the drafts on parts
that share no code with ours: pyca has none of the three."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pqcrypto.sign import falcon_padded_512

CURVE = ec.SECP256R1()
_REPRESENTATIVE = b"CompositeAlgorithmSignatures2025PQCIIOT-COMPSIG-Falcon512-ECDSA-P256-SHA512\0"


def point_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@dataclass
class PrivateKey:
    """Both halves."""

    pq: mlkem.MLKEM768PrivateKey
    curve: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> PrivateKey:
        return cls(mlkem.MLKEM768PrivateKey.generate(), ec.generate_private_key(CURVE))

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """The first candidate of the expansion is a scalar but once in 2^32 times."""
        expanded = hashlib.shake_256(seed).digest(64 + 32)
        scalar = int.from_bytes(expanded[64:], "big")
        return cls(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            ec.derive_private_key(scalar, CURVE),
        )

    @property
    def public(self) -> bytes:
        return self.pq.public_key().public_bytes_raw() + point_of(self.curve)

    def decapsulate(self, enc: bytes) -> bytes:
        ephemeral = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, enc[1088:])
        shared = self.curve.exchange(ec.ECDH(), ephemeral)
        return _combine(self.pq.decapsulate(enc[:1088]), shared, enc[1088:], self.public[1184:])

    def open(self, sealed: bytes, info: bytes, aad: bytes) -> bytes:
        """HPKE, base mode, SHAKE256 and AES-256-GCM."""
        key, nonce = _key_schedule(self.decapsulate(sealed[:1153]), info)
        return AESGCM(key).decrypt(nonce, sealed[1153:], aad)


def seal(public: bytes, plaintext: bytes, info: bytes, aad: bytes) -> bytes:
    """`enc` and ciphertext, one after the other."""
    pq = mlkem.MLKEM768PublicKey.from_public_bytes(public[:1184])
    pq_secret, pq_ciphertext = pq.encapsulate()
    ephemeral = ec.generate_private_key(CURVE)
    recipient = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, public[1184:])
    shared, point = ephemeral.exchange(ec.ECDH(), recipient), point_of(ephemeral)
    key, nonce = _key_schedule(_combine(pq_secret, shared, point, public[1184:]), info)
    return pq_ciphertext + point + AESGCM(key).encrypt(nonce, plaintext, aad)


def _combine(pq_secret: bytes, shared: bytes, point: bytes, public: bytes) -> bytes:
    return hashlib.sha3_256(pq_secret + shared + point + public + b"MLKEM768-P256").digest()


def _key_schedule(secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """The one-stage key schedule: key and nonce of the first message."""

    def prefixed(value: bytes) -> bytes:
        return len(value).to_bytes(2, "big") + value

    suite_id = b"HPKE" + bytes.fromhex("0050 0011 0002")
    length = 32 + 12 + 64
    labeled = prefixed(b"secret") + length.to_bytes(2, "big")
    context = b"\0" + prefixed(b"") + prefixed(info)
    material = prefixed(b"") + prefixed(secret) + b"HPKE-v1" + suite_id + labeled + context
    out = hashlib.shake_256(material).digest(length)
    return out[:32], out[32:44]


def composite_key() -> tuple[bytes, Callable[[bytes], bytes]]:
    """A public key, and what signs with it."""
    falcon_public, falcon = falcon_padded_512.generate_keypair()
    curve = ec.generate_private_key(CURVE)

    def sign(message: bytes) -> bytes:
        representative = _REPRESENTATIVE + hashlib.sha512(message).digest()
        r, s = decode_dss_signature(curve.sign(representative, ec.ECDSA(hashes.SHA256())))
        raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return bytes(falcon_padded_512.sign(falcon, representative)) + raw

    return falcon_public + point_of(curve), sign


def composite_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Both halves."""
    representative = _REPRESENTATIVE + hashlib.sha512(message).digest()
    curve = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, public[897:])
    r, s = (int.from_bytes(signature[at : at + 32], "big") for at in (666, 698))
    try:
        curve.verify(encode_dss_signature(r, s), representative, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return bool(falcon_padded_512.verify(public[:897], representative, signature[:666]))
