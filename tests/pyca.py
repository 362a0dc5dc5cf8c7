"""The KEMs and HPKE of `cryptography`, for keys that are made from our seeds."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519

import mlkem768_p256
from pqc_iiot.primitives import (
    ML_KEM_768,
    ML_KEM_768_P256,
    ML_KEM_768_X25519,
    ML_KEM_1024,
    ML_KEM_1024_P384,
    Aead,
    Kdf,
)
from pqc_iiot.suites import Kem

KEMS = {
    ML_KEM_768: hpke.KEM.MLKEM768,
    ML_KEM_1024: hpke.KEM.MLKEM1024,
    ML_KEM_768_X25519: hpke.KEM.MLKEM768_X25519,
    ML_KEM_1024_P384: hpke.KEM.MLKEM1024_P384,
}
TheirKey: TypeAlias = (
    mlkem.MLKEM768PrivateKey
    | mlkem.MLKEM1024PrivateKey
    | mlkem768_p256.PrivateKey
    | hpke.MLKEM768X25519PrivateKey
    | hpke.MLKEM1024P384PrivateKey
)


def their_suite(suite: tuple[Kem, Kdf, Aead]) -> hpke.Suite:
    """Their name for our suite."""
    kem, kdf, aead = suite
    return hpke.Suite(KEMS[kem], getattr(hpke.KDF, kdf.name), getattr(hpke.AEAD, aead.name))


def their_key(kem: Kem, seed: bytes) -> TheirKey:
    """The key of `cryptography` for our seed, expanded as the hybrids' drafts say."""
    if kem == ML_KEM_768:
        return mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)
    if kem == ML_KEM_1024:
        return mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed)
    if kem == ML_KEM_768_P256:
        return mlkem768_p256.PrivateKey.from_seed(seed)
    expanded = hashlib.shake_256(seed).digest(64 + 48)
    if kem == ML_KEM_768_X25519:
        return hpke.MLKEM768X25519PrivateKey(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            x25519.X25519PrivateKey.from_private_bytes(expanded[64:96]),
        )
    return hpke.MLKEM1024P384PrivateKey(
        mlkem.MLKEM1024PrivateKey.from_seed_bytes(expanded[:64]),
        ec.derive_private_key(int.from_bytes(expanded[64:], "big"), ec.SECP384R1()),
    )
