"""Security providers: who performs a device's private operations, and who protects them.

A provider is chosen by URI (`software:`; others register under their own scheme). It
separates what hardware can *perform* from what it can only *protect*: see `Custody`.
Nobody asks a provider to try; `can` tells beforehand.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from .._core import Secret
from ..errors import InvalidInputError, PolicyError, PqcIiotError, ProviderError
from ..suites import Suite


class Custody(enum.IntEnum):
    """How well a private key is kept, from weakest to strongest."""

    # As from Python 3.11 on; Typer looks values up by it.
    __str__ = int.__repr__

    SOFTWARE = 1
    """Locked, wiped memory in use; encrypted under a passphrase at rest."""
    SEALED = 2
    """Sealed by hardware at rest, in locked memory in use: a stolen disk is useless."""
    SPLIT = 3
    """A classical half that cannot leave the hardware and a sealed post-quantum half."""
    NATIVE = 4
    """The post-quantum private operation runs inside the hardware."""


class Operation(enum.Enum):
    """What a provider may be asked to do with a key."""

    DECRYPT = "decrypt"
    SIGN = "sign"
    GENERATE = "generate"
    SEAL = "seal"
    COUNTER = "counter"
    QUOTE = "quote"


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a provider was found able to do, and the evidence for it."""

    operation: Operation
    algorithm: str
    custody: Custody
    evidence: str


class SigningKey(Protocol):
    """What signs in the name of a key set: the key set, or its signature key alone."""

    @property
    def suite(self) -> Suite:
        """The key set's suite."""

    def sign(self, message: bytes) -> bytes:
        """A signature over `message`."""


class KeySet(ABC):
    """The private keys of one suite: usable, never readable."""

    suite: Suite
    custody: Custody

    @property
    @abstractmethod
    def kem_public_key(self) -> bytes:
        """Encoded KEM public key; `suite.kem.public_key_size` bytes."""

    @property
    @abstractmethod
    def sig_public_key(self) -> bytes:
        """Encoded signature public key; `suite.sig.public_key_size` bytes."""

    @abstractmethod
    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        """HPKE open (base mode, SHAKE256, AES-256-GCM): the plaintext.

        `AuthenticationError` where it does not open.
        """

    @abstractmethod
    def sign(self, message: bytes) -> bytes:
        """A signature over `message`; `suite.sig.signature_size` bytes."""

    def wrap_signature_key(self, kek: Secret, aad: bytes) -> bytes:
        """The private signature key alone, encrypted as by `Secret.wrap_sig`.

        `PolicyError` where it must not leave its custody.
        """
        raise PolicyError(f"the keys are in custody {self.custody.name} and stay there")


class SecurityProvider(ABC):
    """One way to hold keys. An instance is open from construction to `close`."""

    scheme: ClassVar[str]

    @property
    @abstractmethod
    def header(self) -> bytes:
        """What must be stored to open this provider again; not secret, at most 1 KiB."""

    @abstractmethod
    def capabilities(self) -> tuple[Capability, ...]:
        """What this provider can do, found by running it."""

    def can(self, operation: Operation, algorithm: str, custody: Custody) -> bool:
        """Whether it does `operation` with `algorithm` in at least this custody."""
        return any(
            found.operation is operation
            and found.algorithm == algorithm
            and found.custody >= custody
            for found in self.capabilities()
        )

    def require(self, suite: Suite, custody: Custody) -> None:
        """Raises `PolicyError` where keys of `suite` cannot be held in this custody."""
        for operation, algorithm in (
            (Operation.DECRYPT, suite.kem.name),
            (Operation.SIGN, suite.sig.name),
        ):
            if not self.can(operation, algorithm, custody):
                best = [c for c in self.capabilities() if c.algorithm == algorithm]
                offer = max((c.custody for c in best), default=None)
                raise PolicyError(
                    f"{self.scheme} cannot {operation.value} with {algorithm}"
                    f" in custody {custody.name}",
                    hint=f"it offers {offer.name}" if offer else "choose another suite",
                )

    @abstractmethod
    def generate(self, suite: Suite) -> tuple[KeySet, bytes]:
        """New keys, and the blob to store: protected, at most 16 KiB."""

    @abstractmethod
    def load(self, suite: Suite, blob: bytes) -> KeySet:
        """The keys in a blob of this provider. `ProviderError` where it does not open."""

    @abstractmethod
    def seal(self, purpose: bytes, secret: Secret) -> bytes:
        """Protects a secret for storage, bound to `purpose`."""

    @abstractmethod
    def unseal(self, purpose: bytes, blob: bytes) -> Secret:
        """Undoes `seal`. `ProviderError` where blob, purpose or provider is another."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of every key and connection; idempotent."""


PassphraseSource = Callable[[bool], Secret]
"""Gives the passphrase; the argument says whether a new one is being chosen."""


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """What a provider gets to open itself: its URI's rest, a stored header (None to make
    a new one), and where a passphrase comes from."""

    path: str
    header: bytes | None
    passphrase: PassphraseSource | None


def open_provider(
    uri: str, header: bytes | None = None, passphrase: PassphraseSource | None = None
) -> SecurityProvider:
    """Opens the provider that `uri` names; with `header`, the same one as before.

    `InvalidInputError` for an unknown scheme, or `ProviderError` where it was stored with a
    header; `ProviderError` where it does not open.
    """
    scheme, colon, path = uri.partition(":")
    if not colon or scheme not in SCHEMES:
        raise unusable_uri(header)(
            f"no security provider is registered for {uri!r}",
            hint=f"known: {', '.join(f'{name}:' for name in SCHEMES)}",
        )
    return SCHEMES[scheme](ProviderRequest(path, header, passphrase))


def unusable_uri(header: bytes | None) -> type[PqcIiotError]:
    """The error for a URI that cannot be used: typed by somebody, or found in a file."""
    return InvalidInputError if header is None else ProviderError


def _software(request: ProviderRequest) -> SecurityProvider:
    from .software import SoftwareProvider

    return SoftwareProvider(request)


SCHEMES: dict[str, Callable[[ProviderRequest], SecurityProvider]] = {"software": _software}
"""Providers by URI scheme; packages of users may add theirs."""
