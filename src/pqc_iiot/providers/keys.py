"""Private keys by where they are: in locked memory, in two halves, or inside a token.

A provider makes a key set of one KEM key and one signature key. What it implements for
keys in hardware is small: `Ecdh` and `Ecdsa` for the classical halves, `Decapsulator` and
`Signer` for whole post-quantum keys.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Protocol

from .._core import (
    KemPrivateKey,
    Secret,
    SigPrivateKey,
    SplitKemPrivateKey,
    composite_message,
    hpke_open_with,
)
from ..suites import Suite
from .base import Custody, KeySet


class Ecdh(Protocol):
    """An ECDH P-256 key that cannot leave its device."""

    @property
    def public_key(self) -> bytes:
        """The point: 65 bytes, uncompressed (SEC 1)."""

    def agree(self, point: bytes) -> Secret:
        """The x-coordinate that ECDH gives for a point on the curve (65 bytes): 32 bytes,
        with leading zeros."""


class Ecdsa(Protocol):
    """An ECDSA P-256 key that cannot leave its device."""

    @property
    def public_key(self) -> bytes:
        """The point: 65 bytes, uncompressed (SEC 1)."""

    def sign_digest(self, digest: bytes) -> bytes:
        """r || s, 64 bytes, over a SHA-256 digest."""


class Decapsulator(Protocol):
    """A KEM key whose private operation runs inside a token."""

    @property
    def public_key(self) -> bytes:
        """The encoded public key."""

    def decapsulate(self, enc: bytes) -> Secret:
        """The KEM's shared secret, 32 bytes, of an `enc` that has the KEM's length."""


class Signer(Protocol):
    """A signature key whose private operation runs inside a token."""

    @property
    def public_key(self) -> bytes:
        """The encoded public key."""

    def sign(self, message: bytes) -> bytes:
        """A signature of the algorithm's length."""


class KemKey(ABC):
    """A KEM private key, wherever it is."""

    custody: Custody

    @property
    @abstractmethod
    def public_key(self) -> bytes:
        """The encoded public key."""

    @abstractmethod
    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """As `KeySet.decrypt`."""


class SigKey(ABC):
    """A signature private key, wherever it is."""

    custody: Custody

    @property
    @abstractmethod
    def public_key(self) -> bytes:
        """The encoded public key."""

    @abstractmethod
    def sign(self, message: bytes) -> bytes:
        """As `KeySet.sign`."""

    def wrapped(self, kek: Secret, aad: bytes) -> bytes | None:
        """The key under `kek`, or None where it must not leave its custody."""
        return None


class MemoryKem(KemKey):
    """A KEM key in the core's locked memory."""

    def __init__(self, key: KemPrivateKey, custody: Custody) -> None:
        self._key, self.custody = key, custody

    @property
    def public_key(self) -> bytes:
        """See `KemKey`."""
        return self._key.public_key

    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """See `KeySet`."""
        return self._key.hpke_open(enc, info, aad, ciphertext)


class MemorySig(SigKey):
    """A signature key in the core's locked memory."""

    def __init__(self, key: SigPrivateKey, custody: Custody) -> None:
        self._key, self.custody = key, custody

    @property
    def public_key(self) -> bytes:
        """See `SigKey`."""
        return self._key.public_key

    def sign(self, message: bytes) -> bytes:
        """See `KeySet`."""
        return self._key.sign(message)

    def wrapped(self, kek: Secret, aad: bytes) -> bytes | None:
        """See `SigKey`."""
        return kek.wrap_sig(aad, self._key) if self.custody is Custody.SOFTWARE else None


class SplitKem(KemKey):
    """MLKEM768-P256: ML-KEM in locked memory, ECDH in a device; both are needed."""

    custody = Custody.SPLIT

    def __init__(self, kem_id: int, post_quantum: KemPrivateKey, classical: Ecdh) -> None:
        self._key = SplitKemPrivateKey(kem_id, post_quantum, classical.public_key)
        self._classical = classical

    @property
    def public_key(self) -> bytes:
        """See `KemKey`."""
        return self._key.public_key

    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """See `KeySet`; one call of the device, never with a point off the curve."""
        share = self._classical.agree(self._key.classical_share_point(enc))
        return self._key.hpke_open_shared(enc, info, aad, ciphertext, share)


class SplitSig(SigKey):
    """Falcon-512 in locked memory and ECDSA P-256 in a device, over the same message."""

    custody = Custody.SPLIT

    def __init__(self, post_quantum: SigPrivateKey, classical: Ecdsa) -> None:
        self._falcon, self._classical = post_quantum, classical
        self._public_key = post_quantum.public_key + classical.public_key

    @property
    def public_key(self) -> bytes:
        """See `SigKey`."""
        return self._public_key

    def sign(self, message: bytes) -> bytes:
        """See `KeySet`; one call of the device."""
        representative = composite_message(message)
        digest = hashlib.sha256(representative).digest()
        return self._falcon.sign(representative) + self._classical.sign_digest(digest)


class NativeKem(KemKey):
    """A KEM key inside a token: only its shared secrets come out, into locked memory."""

    custody = Custody.NATIVE

    def __init__(self, kem_id: int, token: Decapsulator) -> None:
        self._kem_id, self._token = kem_id, token

    @property
    def public_key(self) -> bytes:
        """See `KemKey`."""
        return self._token.public_key

    def decapsulate(self, enc: bytes) -> Secret:
        """The KEM's shared secret of `enc`, 32 bytes."""
        return self._token.decapsulate(enc)

    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """See `KeySet`; one call of the token."""
        return hpke_open_with(self._kem_id, self.decapsulate(enc), enc, info, aad, ciphertext)


class NativeSig(SigKey):
    """A signature key inside a token."""

    custody = Custody.NATIVE

    def __init__(self, token: Signer) -> None:
        self._token = token

    @property
    def public_key(self) -> bytes:
        """See `SigKey`."""
        return self._token.public_key

    def sign(self, message: bytes) -> bytes:
        """See `KeySet`; one call of the token."""
        return self._token.sign(message)


class Keys(KeySet):
    """A key set made of two keys."""

    def __init__(self, suite: Suite, kem: KemKey, sig: SigKey) -> None:
        self.suite, self.kem, self.sig = suite, kem, sig
        self.kem_custody, self.sig_custody = kem.custody, sig.custody

    @property
    def kem_public_key(self) -> bytes:
        """See `KeySet`."""
        return self.kem.public_key

    @property
    def sig_public_key(self) -> bytes:
        """See `KeySet`."""
        return self.sig.public_key

    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """See `KeySet`."""
        return self.kem.decrypt(enc, info, aad, ciphertext)

    def sign(self, message: bytes) -> bytes:
        """See `KeySet`."""
        return self.sig.sign(message)

    def wrap_signature_key(self, kek: Secret, aad: bytes) -> bytes:
        """See `KeySet`."""
        wrapped = self.sig.wrapped(kek, aad)
        return super().wrap_signature_key(kek, aad) if wrapped is None else wrapped
