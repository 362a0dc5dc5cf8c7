"""Keys in locked memory, encrypted at rest under a passphrase (Argon2id, RFC 9106).

`software:` asks for a passphrase. `software:insecure-plaintext-keys` keeps a passphrase of
its own in the stored header: the files protect nothing, and the name says so.
"""

from __future__ import annotations

import os
import secrets

from .. import cose
from .._core import KemPrivateKey, Secret, SigPrivateKey, argon2id, self_test
from ..errors import (
    AuthenticationError,
    InvalidInputError,
    PqcIiotError,
    ProviderError,
    WrongPassphraseError,
)
from ..suites import SUITES, Suite
from . import (
    Capability,
    Custody,
    KeySet,
    Operation,
    ProviderRequest,
    SecurityProvider,
    unusable_uri,
)

INSECURE = "insecure-plaintext-keys"

_PASSPHRASE_COST = (65536, 3, 4)
"""KiB, passes, lanes: RFC 9106 section 4, second recommended option (64 MiB)."""
_RANDOM_COST = (8, 1, 1)
"""For the plaintext mode: its passphrase has 256 random bits, stretching adds nothing."""
_SALT_SIZE = 16


class SoftwareKeySet(KeySet):
    """Keys in the core's locked memory."""

    custody = Custody.SOFTWARE

    def __init__(self, suite: Suite, kem: KemPrivateKey, sig: SigPrivateKey) -> None:
        self.suite = suite
        self._kem, self._sig = kem, sig

    @property
    def kem_public_key(self) -> bytes:
        """See `KeySet`."""
        return self._kem.public_key

    @property
    def sig_public_key(self) -> bytes:
        """See `KeySet`."""
        return self._sig.public_key

    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """See `KeySet`."""
        return self._kem.hpke_open(enc, info, aad, ciphertext)

    def sign(self, message: bytes) -> bytes:
        """See `KeySet`."""
        return self._sig.sign(message)

    def wrap_signature_key(self, kek: Secret, aad: bytes) -> bytes:
        """See `KeySet`."""
        if self.custody > Custody.SOFTWARE:
            return super().wrap_signature_key(kek, aad)
        return kek.wrap_sig(aad, self._sig)


class SoftwareProvider(SecurityProvider):
    """The provider of the `software:` scheme."""

    scheme = "software"

    def __init__(self, request: ProviderRequest) -> None:
        if request.path not in ("", INSECURE):
            raise unusable_uri(request.header)(
                f"software:{request.path} is not known", hint=f"software: or software:{INSECURE}"
            )
        self_test()
        insecure = request.path == INSECURE
        new = request.header is None
        cost = _RANDOM_COST if insecure else _PASSPHRASE_COST
        if request.header is None:
            kept = secrets.token_hex(32).encode() if insecure else b""
            self._header = cose.dumps([os.urandom(_SALT_SIZE), *cost, kept])
        else:
            self._header = request.header
        salt, cost_read, kept = _parse_header(self._header)
        # Before the passphrase nothing vouches for a header: one that asks for a gigabyte
        # and minutes is no key file of ours.
        if bool(kept) != insecure or cost_read != cost:
            raise ProviderError("the key file's header does not fit its provider")
        if insecure:
            passphrase = _as_secret(kept)
        elif request.passphrase is None:
            raise ProviderError(
                "the keys are protected by a passphrase and none was given",
                hint="give --passphrase-file, a systemd credential, or answer the prompt",
            )
        else:
            passphrase = request.passphrase(new)
        self._kek: Secret | None = argon2id(passphrase, salt, *cost)

    @property
    def header(self) -> bytes:
        """Salt, costs, and the passphrase of the plaintext mode."""
        return self._header

    def capabilities(self) -> tuple[Capability, ...]:
        """Every suite, in software: the self-tests are the evidence."""
        self_test()
        pairs = {(Operation.DECRYPT, suite.kem.name) for suite in SUITES.values()}
        pairs |= {(Operation.SIGN, suite.sig.name) for suite in SUITES.values()}
        evidence = "known-answer tests passed in this process"
        return tuple(
            Capability(operation, algorithm, Custody.SOFTWARE, evidence)
            for operation, algorithm in sorted(pairs, key=lambda pair: (pair[0].value, pair[1]))
        )

    def _key(self) -> Secret:
        if self._kek is None:
            raise ProviderError("the provider is closed")
        return self._kek

    def generate(self, suite: Suite) -> tuple[KeySet, bytes]:
        """New keys from the kernel's randomness, checked against themselves."""
        kem = KemPrivateKey.generate(suite.kem.id)
        sig = SigPrivateKey.generate(suite.sig.id)
        kek = self._key()
        blob = [kek.wrap_kem(_aad(suite, "kem"), kem), kek.wrap_sig(_aad(suite, "sig"), sig)]
        return SoftwareKeySet(suite, kem, sig), cose.dumps(blob)

    def load(self, suite: Suite, blob: bytes) -> KeySet:
        """Decrypts straight into locked memory."""
        parts = cose.loads(blob, 16384, "the key blob", ProviderError)
        kek = self._key()
        try:
            match parts:
                case [bytes(kem), bytes(sig)]:
                    return SoftwareKeySet(
                        suite,
                        kek.unwrap_kem(_aad(suite, "kem"), suite.kem.id, kem),
                        kek.unwrap_sig(_aad(suite, "sig"), suite.sig.id, sig),
                    )
                case _:
                    raise ProviderError("the key blob has another shape")
        except (AuthenticationError, InvalidInputError) as cause:
            raise _does_not_open() from cause

    def seal(self, purpose: bytes, secret: Secret) -> bytes:
        """AES-256-GCM under the passphrase's key."""
        return self._key().wrap(b"seal:" + purpose, secret)

    def unseal(self, purpose: bytes, blob: bytes) -> Secret:
        """Undoes `seal`."""
        try:
            return self._key().unwrap(b"seal:" + purpose, blob)
        except (AuthenticationError, InvalidInputError) as cause:
            raise _does_not_open() from cause

    def close(self) -> None:
        """Drops the key-encryption key."""
        self._kek = None


def _aad(suite: Suite, which: str) -> bytes:
    return f"pqc-iiot key {suite.id} {which}".encode()


def _does_not_open() -> PqcIiotError:
    return WrongPassphraseError(
        "the key file does not open with this passphrase",
        hint="check the passphrase; if it is right, the file is damaged: restore it",
    )


def _parse_header(header: bytes) -> tuple[bytes, tuple[int, int, int], bytes]:
    match cose.loads(header, 1024, "the provider's header", ProviderError):
        case [bytes(salt), int(memory), int(passes), int(lanes), bytes(kept)] if (
            len(salt) == _SALT_SIZE
        ):
            return salt, (memory, passes, lanes), kept
    raise ProviderError("the provider's header has another shape")


def _as_secret(value: bytes) -> Secret:
    """Into the core by a pipe, as every passphrase goes."""
    reader, writer = os.pipe()
    try:
        os.write(writer, value)
        os.close(writer)
        return Secret.read_fd(reader)
    finally:
        os.close(reader)
