"""Keys that are stored under one 32-byte key-encryption key, wherever that comes from: a
passphrase, or hardware that unseals it. In use they are in the core's locked memory, but
for what the hardware performs itself.
"""

from __future__ import annotations

from .. import cose
from .._core import KemPrivateKey, Secret, SigPrivateKey
from ..errors import AuthenticationError, IntegrityFailedError, InvalidInputError, ProviderError
from ..suites import FALCON_512, ML_KEM_768, SUITES, Kem, Sig, Suite
from .base import Assurance, Capability, Custody, KeySet, Operation, SecurityProvider
from .keys import (
    Decapsulator,
    Ecdh,
    Ecdsa,
    KemKey,
    Keys,
    MemoryKem,
    MemorySig,
    NativeKem,
    NativeSig,
    SigKey,
    Signer,
    SplitKem,
    SplitSig,
)

_SPLIT_KEM = 0x0050
_SPLIT_SIG = -65603


class KekProvider(SecurityProvider):
    """Generates, loads, seals and unseals under `kek`, which a subclass obtains.

    `custody` is what `kek`'s protection amounts to. Hardware that performs more overrides
    the `make_` and `load_` methods of what it performs: each `make_` returns the key and a
    reference by which `load_` finds it again (a wrapped blob, an object's id; at most 4 KiB,
    stored in the clear), or None where the hardware has no such key.
    """

    custody: Custody

    def __init__(self, kek: Secret) -> None:
        self._kek: Secret | None = kek

    def generate(self, suite: Suite) -> tuple[KeySet, bytes]:
        """New keys from the kernel's randomness, or made inside the hardware."""
        kem, kem_part = self._generate_kem(suite)
        sig, sig_part = self._generate_sig(suite)
        tag = self._mac_key().mac(_blob_content(suite, kem_part, sig_part))
        return Keys(suite, kem, sig), cose.dumps([kem_part, sig_part, tag])

    def load(self, suite: Suite, blob: bytes) -> KeySet:
        """Decrypts straight into locked memory, and finds in hardware what is there."""
        kem, sig, tag = _parts(blob)
        # What is in hardware is found by references: nothing is looked for that is not ours.
        if not self._mac_key().verify_mac(_blob_content(suite, kem, sig), tag):
            raise self.does_not_open()
        try:
            return Keys(suite, self._load_kem(suite, kem), self._load_sig(suite, sig))
        except (AuthenticationError, InvalidInputError) as cause:
            raise self.does_not_open() from cause

    def seal(self, purpose: bytes, secret: Secret) -> bytes:
        """AES-256-GCM under the key-encryption key."""
        return self._key().wrap(b"seal:" + purpose, secret)

    def unseal(self, purpose: bytes, blob: bytes) -> Secret:
        """Undoes `seal`."""
        try:
            return self._key().unwrap(b"seal:" + purpose, blob)
        except (AuthenticationError, InvalidInputError) as cause:
            raise self.does_not_open() from cause

    def close(self) -> None:
        """Drops the key-encryption key."""
        self._kek = None

    def does_not_open(self) -> ProviderError:
        """The error for a blob that is not authentic under `kek`."""
        return IntegrityFailedError(
            "the stored keys do not open under this device's key",
            hint="they belong to another device, or the file is damaged: restore it",
        )

    # What hardware performs: nothing, unless a subclass says otherwise.

    def make_ecdh(self) -> tuple[Ecdh, bytes] | None:
        """A new ECDH P-256 key that cannot leave the hardware."""
        return None

    def load_ecdh(self, reference: bytes) -> Ecdh:
        """The key that `make_ecdh` made. `KeyNotFoundError` where it is gone."""
        raise _another_shape()

    def make_ecdsa(self) -> tuple[Ecdsa, bytes] | None:
        """A new ECDSA P-256 key that cannot leave the hardware."""
        return None

    def load_ecdsa(self, reference: bytes) -> Ecdsa:
        """The key that `make_ecdsa` made. `KeyNotFoundError` where it is gone."""
        raise _another_shape()

    def make_kem(self, kem: Kem) -> tuple[Decapsulator, bytes] | None:
        """A new key of `kem` inside the hardware, which decapsulates."""
        return None

    def load_kem(self, kem: Kem, reference: bytes) -> Decapsulator:
        """The key that `make_kem` made. `KeyNotFoundError` where it is gone."""
        raise _another_shape()

    def make_sig(self, sig: Sig) -> tuple[Signer, bytes] | None:
        """A new key of `sig` inside the hardware, which signs."""
        return None

    def load_sig(self, sig: Sig, reference: bytes) -> Signer:
        """The key that `make_sig` made. `KeyNotFoundError` where it is gone."""
        raise _another_shape()

    # A part of the blob is the wrapped key (in memory), [reference] (inside the hardware)
    # or [wrapped key, reference] (a half of each).

    def _generate_kem(self, suite: Suite) -> tuple[KemKey, object]:
        kek = self._key()
        if native := self.make_kem(suite.kem):
            return NativeKem(suite.kem.id, native[0]), [native[1]]
        if suite.kem.id == _SPLIT_KEM and (made := self.make_ecdh()):
            ecdh, reference = made
            half = KemPrivateKey.generate(ML_KEM_768.id)
            wrapped = kek.wrap_kem(_aad(suite, "kem", ecdh.public_key), half)
            return SplitKem(suite.kem.id, half, ecdh), [wrapped, reference]
        key = KemPrivateKey.generate(suite.kem.id)
        return MemoryKem(key, self.custody), kek.wrap_kem(_aad(suite, "kem"), key)

    def _load_kem(self, suite: Suite, part: object) -> KemKey:
        kek, kem = self._key(), suite.kem
        match part:
            case bytes(wrapped):
                key = kek.unwrap_kem(_aad(suite, "kem"), kem.id, wrapped)
                return MemoryKem(key, self.custody)
            case [bytes(reference)]:
                return NativeKem(kem.id, self.load_kem(kem, reference))
            case [bytes(wrapped), bytes(reference)] if kem.id == _SPLIT_KEM:
                ecdh = self.load_ecdh(reference)
                aad = _aad(suite, "kem", ecdh.public_key)
                return SplitKem(kem.id, kek.unwrap_kem(aad, ML_KEM_768.id, wrapped), ecdh)
        raise _another_shape()

    def _generate_sig(self, suite: Suite) -> tuple[SigKey, object]:
        kek = self._key()
        if native := self.make_sig(suite.sig):
            return NativeSig(native[0]), [native[1]]
        if suite.sig.id == _SPLIT_SIG and (made := self.make_ecdsa()):
            ecdsa, reference = made
            half = SigPrivateKey.generate(FALCON_512.id)
            wrapped = kek.wrap_sig(_aad(suite, "sig", ecdsa.public_key), half)
            return SplitSig(half, ecdsa), [wrapped, reference]
        key = SigPrivateKey.generate(suite.sig.id)
        return MemorySig(key, self.custody), kek.wrap_sig(_aad(suite, "sig"), key)

    def _load_sig(self, suite: Suite, part: object) -> SigKey:
        kek, sig = self._key(), suite.sig
        match part:
            case bytes(wrapped):
                key = kek.unwrap_sig(_aad(suite, "sig"), sig.id, wrapped)
                return MemorySig(key, self.custody)
            case [bytes(reference)]:
                return NativeSig(self.load_sig(sig, reference))
            case [bytes(wrapped), bytes(reference)] if sig.id == _SPLIT_SIG:
                ecdsa = self.load_ecdsa(reference)
                aad = _aad(suite, "sig", ecdsa.public_key)
                return SplitSig(kek.unwrap_sig(aad, FALCON_512.id, wrapped), ecdsa)
        raise _another_shape()

    def _mac_key(self) -> Secret:
        return self._key().derive(b"pqc-iiot key blobs")

    def _key(self) -> Secret:
        if self._kek is None:
            raise ProviderError("the provider is closed")
        return self._kek


def memory_capabilities(
    custody: Custody, evidence: str, assurance: Assurance
) -> tuple[Capability, ...]:
    """Every suite with both keys in locked memory, in the custody of their storage."""
    pairs = {(Operation.DECRYPT, suite.kem.name) for suite in SUITES.values()}
    pairs |= {(Operation.SIGN, suite.sig.name) for suite in SUITES.values()}
    return tuple(
        Capability(operation, algorithm, custody, evidence, assurance)
        for operation, algorithm in sorted(pairs, key=lambda pair: (pair[0].value, pair[1]))
    )


def references(blob: bytes) -> tuple[bytes | None, bytes | None]:
    """The references in hardware, of KEM and signature key, in a blob of `generate`."""
    kem, sig, _ = _parts(blob)
    return _reference(kem), _reference(sig)


def _parts(blob: bytes) -> tuple[object, object, bytes]:
    match cose.loads(blob, 16384, "the key blob", ProviderError):
        case [kem, sig, bytes(tag)]:
            return kem, sig, tag
    raise _another_shape()


def _blob_content(suite: Suite, kem: object, sig: object) -> bytes:
    return cose.dumps(["pqc-iiot keys", suite.id, kem, sig])


def _reference(part: object) -> bytes | None:
    match part:
        case [*_, bytes(reference)]:
            return reference
    return None


def _aad(suite: Suite, which: str, outside: bytes = b"") -> bytes:
    # The half outside is public: a wrapped half opens for the device it was made with only.
    return f"pqc-iiot key {suite.id} {which}".encode() + outside


def _another_shape() -> ProviderError:
    return ProviderError("the key blob has another shape")
