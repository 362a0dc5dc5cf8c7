"""Keys in locked memory, encrypted at rest under a passphrase (Argon2id, RFC 9106).

`software:` asks for a passphrase. `software:insecure-plaintext-keys` keeps a passphrase of
its own in the stored header: the files protect nothing, and the name says so.
"""

from __future__ import annotations

import os
import secrets

from .. import cose
from .._core import Secret, argon2id, self_test
from ..errors import ProviderError, WrongPassphraseError
from .base import Capability, Custody, ProviderRequest, unusable_uri
from .sealed import KekProvider, memory_capabilities

INSECURE = "insecure-plaintext-keys"

_PASSPHRASE_COST = (65536, 3, 4)
"""KiB, passes, lanes: RFC 9106 section 4, second recommended option (64 MiB)."""
_RANDOM_COST = (8, 1, 1)
"""For the plaintext mode: its passphrase has 256 random bits, stretching adds nothing."""
_SALT_SIZE = 16


class SoftwareProvider(KekProvider):
    """The provider of the `software:` scheme."""

    scheme = "software"
    custody = Custody.SOFTWARE

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
        super().__init__(argon2id(passphrase, salt, *cost))

    @property
    def header(self) -> bytes:
        """Salt, costs, and the passphrase of the plaintext mode."""
        return self._header

    def capabilities(self) -> tuple[Capability, ...]:
        """Every suite, in software: the self-tests are the evidence."""
        self_test()
        evidence = "known-answer tests passed in this process"
        return memory_capabilities(Custody.SOFTWARE, evidence, self.assurance)

    def does_not_open(self) -> ProviderError:
        """Who has the file has everything but the passphrase."""
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
