"""Low-level faces for interoperability and test vectors: signatures, KEMs and HPKE.

They exist so that anyone can check this package against another implementation, or
against published vectors. Private keys are seeds and shared secrets are results here, as
`bytes` of Python, on purpose: Python copies such objects at will, they cannot be wiped,
and the kernel may swap them out. Nothing else in this package takes this path; its keys
and secrets never leave locked memory. To protect messages use `pqc_iiot.Node`.

What is random stays random: encapsulation and sealing draw from the kernel, and only
keys can be made from a seed.

Algorithms are rows of `pqc_iiot.suites`; sizes are in bytes.

| KEM | standard | seed | public key | ciphertext (`enc`) |
|---|---|---|---|---|
| `ML_KEM_768` | FIPS 203 | 64 (`d || z`) | 1184 | 1088 |
| `ML_KEM_1024` | FIPS 203 | 64 (`d || z`) | 1568 | 1568 |
| `ML_KEM_768_X25519` | X-Wing | 32 | 1216 | 1120 |
| `ML_KEM_768_P256` | draft-ietf-hpke-pq | 32 | 1249 | 1153 |
| `ML_KEM_1024_P384` | draft-ietf-hpke-pq | 32 | 1665 | 1665 |

Every shared secret has 32 bytes.

| signature | standard | public key | signature |
|---|---|---|---|
| `FALCON_512` | Falcon, NIST round 3, padded | 897 | 666 |
| `FALCON_1024` | Falcon, NIST round 3, padded | 1793 | 1280 |
| `FALCON_512_ECDSA_P256` | both, as in draft-ietf-lamps-pq-composite-sigs | 962 | 730 |
| `ML_DSA_65` | FIPS 204, pure, empty context | 1952 | 3309 |
| `ML_DSA_87` | FIPS 204, pure, empty context | 2592 | 4627 |

Sources: FIPS 203 and 204 (August 2024); Falcon's round-3 specification v1.2 (it is not
FN-DSA: FIPS 206 is unpublished); HPKE from RFC 9180, its one-stage KDFs from
draft-ietf-hpke-hpke-04, its KEMs from draft-ietf-hpke-pq-05; the hybrids from
draft-irtf-cfrg-concrete-hybrid-kems-04 and draft-connolly-cfrg-xwing-kem-11. The last
four are drafts: the vectors that their authors published in March and April 2026 decide.

Every function raises `SelfTestError` once a self-test of this process failed.
"""

from __future__ import annotations

from enum import IntEnum

from . import _core
from .suites import (
    FALCON_512,
    FALCON_512_ECDSA_P256,
    FALCON_1024,
    ML_DSA_65,
    ML_DSA_87,
    ML_KEM_768,
    ML_KEM_768_P256,
    ML_KEM_768_X25519,
    ML_KEM_1024,
    ML_KEM_1024_P384,
    Kem,
    Sig,
)

__all__ = [
    "FALCON_512",
    "FALCON_512_ECDSA_P256",
    "FALCON_1024",
    "ML_DSA_65",
    "ML_DSA_87",
    "ML_KEM_768",
    "ML_KEM_768_P256",
    "ML_KEM_768_X25519",
    "ML_KEM_1024",
    "ML_KEM_1024_P384",
    "Aead",
    "Kdf",
    "decapsulate",
    "encapsulate",
    "hpke_open",
    "hpke_seal",
    "public_key",
    "verify",
]


class Kdf(IntEnum):
    """HPKE's KDFs by their identifiers (RFC 9180 section 7.2, draft-ietf-hpke-hpke)."""

    HKDF_SHA256 = 0x0001
    HKDF_SHA384 = 0x0002
    HKDF_SHA512 = 0x0003
    SHAKE128 = 0x0010
    SHAKE256 = 0x0011


class Aead(IntEnum):
    """HPKE's AEADs by their identifiers (RFC 9180 section 7.3)."""

    AES_128_GCM = 0x0001
    AES_256_GCM = 0x0002
    CHACHA20_POLY1305 = 0x0003


def verify(sig: Sig, public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` is one of `message` by the key `public_key`.

    A signature of the wrong length is a wrong signature. Raises `InvalidInputError` if
    `public_key` has the wrong length or is no key.
    """
    return _core.SigPublicKey(sig.id, public_key).verify(message, signature)


def public_key(kem: Kem, seed: bytes) -> bytes:
    """Give the public key of the private key that `seed` stands for.

    Raises `InvalidInputError` if `seed` has the wrong length.
    """
    return _core.kem_public_key(kem.id, seed)


def encapsulate(kem: Kem, public_key: bytes) -> tuple[bytes, bytes]:
    """Make a ciphertext for `public_key`, and the shared secret in it (32 bytes).

    Raises `InvalidInputError` if `public_key` has the wrong length or is no key (FIPS 203
    section 7.2; a P-384 point off the curve; an X25519 point of small order).
    """
    return _core.kem_encapsulate(kem.id, public_key)


def decapsulate(kem: Kem, seed: bytes, ciphertext: bytes) -> bytes:
    """Give the shared secret (32 bytes) in `ciphertext`, for the private key of `seed`.

    A changed ML-KEM ciphertext gives another secret and no error (implicit rejection,
    FIPS 203 section 6.3). Raises `InvalidInputError` if `seed` or `ciphertext` has the
    wrong length, or if the classical half of a hybrid's ciphertext is no valid point.
    """
    return _core.kem_decapsulate(kem.id, seed, ciphertext)


def hpke_seal(
    suite: tuple[Kem, Kdf, Aead], public_key: bytes, *, info: bytes, aad: bytes, plaintext: bytes
) -> tuple[bytes, bytes]:
    """Encrypt to `public_key`: HPKE base mode, single shot (RFC 9180 section 6.1).

    Returns `enc` (see the module's table) and the ciphertext, 16 bytes longer than
    `plaintext`. With a SHAKE as KDF `info` has at most 65,535 bytes. Raises
    `InvalidInputError` for a longer one and as `encapsulate` does.
    """
    return _core.hpke_seal(_ids(suite), public_key, info, aad, plaintext)


def hpke_open(
    suite: tuple[Kem, Kdf, Aead],
    seed: bytes,
    enc: bytes,
    *,
    info: bytes,
    aad: bytes,
    ciphertext: bytes,
) -> bytes:
    """Decrypt with the private key of `seed` what `hpke_seal` made: the plaintext.

    Raises `AuthenticationError` if anything differs from what was sealed, and
    `InvalidInputError` if `seed` or `enc` has the wrong length or `info` is too long.
    """
    return _core.hpke_open(_ids(suite), seed, enc, info, aad, ciphertext)


def _ids(suite: tuple[Kem, Kdf, Aead]) -> tuple[int, int, int]:
    kem, kdf, aead = suite
    return kem.id, kdf, aead
