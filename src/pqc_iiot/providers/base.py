"""The interface of a security provider: what it performs, what it only protects.

Nobody asks a provider to try; `SecurityProvider.can` tells beforehand, and what it tells was
found by running the hardware.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from .._core import Secret
from ..errors import CustodyTooLowError, InvalidInputError, PolicyError, PqcIiotError, ProviderError
from ..suites import SUITES, Suite


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


class Assurance(enum.IntEnum):
    """What is known of the device that holds a key, from weakest to strongest; nothing of
    how the key is kept in it (`Custody`)."""

    __str__ = int.__repr__

    EMULATOR = 1
    """A program, or no device at all: for development and testing."""
    CLAIMED = 2
    """The device says what it is, and nothing proves it."""
    ATTESTED = 3
    """A certificate of its maker vouches for the device's own key."""


class Operation(enum.Enum):
    """What a provider may be asked to do with a key."""

    DECRYPT = "decrypt"
    DECAPSULATE = "decapsulate"
    SIGN = "sign"
    GENERATE = "generate"
    SEAL = "seal"
    COUNTER = "counter"
    QUOTE = "quote"


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that a provider was found able to do, and the evidence for it: what was
    read back or tried, in a few words. `seconds` is how long it took where it was measured."""

    operation: Operation
    algorithm: str
    custody: Custody
    evidence: str
    assurance: Assurance = Assurance.EMULATOR
    seconds: float | None = None

    @property
    def performed(self) -> bool:
        """Whether hardware performs it, or a half of it; otherwise hardware only protects
        the key."""
        return self.custody >= Custody.SPLIT


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
    kem_custody: Custody
    sig_custody: Custody

    @property
    def custody(self) -> Custody:
        """The weaker of the two keys' custodies."""
        return min(self.kem_custody, self.sig_custody)

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


class Counter(ABC):
    """A number that only grows, kept outside the state folder."""

    rollback_protected: bool
    """Whether nobody can set it back, its owner neither."""

    @property
    @abstractmethod
    def name(self) -> bytes:
        """Which counter it is: differs for one that was removed and made again, where the
        hardware can tell; 1 to 64 bytes."""

    @abstractmethod
    def value(self) -> int:
        """The number now."""

    @abstractmethod
    def increment(self) -> int:
        """Adds one, durably, and returns the new number. Where it raises, it may have
        counted or not: ask `value`."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a device states of itself, signed inside it.

    `kind` names the format and who verifies it (`tpm2`), `key` is the public attestation
    key, `statement` what it signed, `more` further parts by name (certificates, values
    that the statement only has hashes of).
    """

    kind: str
    key: bytes
    statement: bytes
    signature: bytes
    more: tuple[tuple[str, bytes], ...] = ()


class SecurityProvider(ABC):
    """One way to hold keys. An instance is open from construction to `close`."""

    scheme: ClassVar[str]
    assurance: Assurance = Assurance.EMULATOR

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
        """Raises `CustodyTooLowError` where keys of `suite` cannot be held in this custody,
        with what the provider can and cannot do."""
        for operation, algorithm in (
            (Operation.DECRYPT, suite.kem.name),
            (Operation.SIGN, suite.sig.name),
        ):
            if not self.can(operation, algorithm, custody):
                raise CustodyTooLowError(
                    f"{self.scheme} cannot {operation.value} with {algorithm}"
                    f" in custody {custody.name}",
                    hint=self._offer(operation, algorithm, custody),
                )

    def _offer(self, operation: Operation, algorithm: str, custody: Custody) -> str:
        """What it can do instead: this algorithm in another custody, other suites in this."""
        found = self.capabilities()
        best = [c for c in found if c.operation is operation and c.algorithm == algorithm]
        offer = f"it cannot do {algorithm} at all"
        if best:
            row = max(best, key=lambda capability: capability.custody)
            offer = f"it offers {row.custody.name} ({row.evidence})"
        suites = [
            str(suite.id)
            for suite in SUITES.values()
            if self.can(Operation.DECRYPT, suite.kem.name, custody)
            and self.can(Operation.SIGN, suite.sig.name, custody)
        ]
        in_custody = f"suites in custody {custody.name}: {', '.join(suites) or 'none'}"
        return f"{offer}; {in_custody}; all it can: pqc-iiot provider test {self.scheme}:"

    @abstractmethod
    def generate(self, suite: Suite) -> tuple[KeySet, bytes]:
        """New keys, and the blob to store: protected, at most 16 KiB."""

    @abstractmethod
    def load(self, suite: Suite, blob: bytes) -> KeySet:
        """The keys in a blob of this provider. `ProviderError` where it does not open."""

    def discard(self, suite: Suite, blob: bytes) -> None:  # noqa: B027
        """Removes what `generate` left in hardware for these keys, which nobody needs any
        more; nothing where the blob was all of it. Idempotent."""

    @abstractmethod
    def seal(self, purpose: bytes, secret: Secret) -> bytes:
        """Protects a secret for storage, bound to `purpose`."""

    @abstractmethod
    def unseal(self, purpose: bytes, blob: bytes) -> Secret:
        """Undoes `seal`. `ProviderError` where blob, purpose or provider is another."""

    def counter(self) -> Counter | None:
        """The device's counter, or None where the hardware has none."""
        return None

    def quote(self, nonce: bytes) -> Evidence | None:
        """The device's state, signed inside it together with `nonce` (32 bytes); None where
        the hardware cannot. `verify_quote` checks it, on any machine."""
        return None

    def erase(self) -> None:  # noqa: B027
        """Removes what opening a new provider left in hardware (a key that seals, a counter):
        after it nothing that this provider made opens again. Idempotent."""

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


def unusable_uri(header: bytes | None) -> type[PqcIiotError]:
    """The error for a URI that cannot be used: typed by somebody, or found in a file."""
    return InvalidInputError if header is None else ProviderError
