"""The checks for security providers: those that are in order pass, and each of those that are
not fails the check that is about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import emulated
from devices import PLAINTEXT
from emulated import EmulatedProvider, FileCounter
from pqc_iiot import conformance
from pqc_iiot._core import Secret
from pqc_iiot.conformance.checks import CHECKS
from pqc_iiot.errors import ProviderError
from pqc_iiot.providers import (
    SCHEMES,
    Capability,
    Custody,
    Evidence,
    KeySet,
    Operation,
    ProviderRequest,
)
from pqc_iiot.providers.keys import Keys
from pqc_iiot.suites import SUITES, Suite


def failed(uri: str, suites: tuple[int, ...] = (6,)) -> set[str]:
    report = conformance.run(uri, suites=suites)
    assert {outcome.check for outcome in report.outcomes} == set(CHECKS)
    return {outcome.check for outcome in report.outcomes if not outcome.passed}


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"{emulated.SCHEME}:{tmp_path / 'device'}"


def test_software() -> None:
    report = conformance.run(PLAINTEXT)
    assert report.passed, report.outcomes
    assert {key.suite for key in report.keys} == set(SUITES)
    assert {key.custody for key in report.keys} == {"SOFTWARE"}
    assert all(row.seconds is not None for row in report.capabilities)
    assert (report.assurance, report.rollback_protected) == ("EMULATOR", False)


def test_a_device_with_everything(uri: str, tmp_path: Path) -> None:
    report = conformance.run(uri)
    assert report.passed, report.outcomes
    assert report.rollback_protected
    custodies = {(key.suite, key.custody) for key in report.keys}
    assert custodies == {(n, "SPLIT" if n == 6 else "SEALED") for n in SUITES}
    # Of several claims for an algorithm the one that its keys have was measured.
    assert all(row.seconds for row in report.capabilities if row.custody is Custody.SPLIT)
    left = {file.name for file in (tmp_path / "device").iterdir()}
    assert {"attestation", "counter"} < left
    assert len(left) == 3, "keys stayed in the device"


class Overstating(EmulatedProvider):
    """Says that all of its keys are inside."""

    def capabilities(self) -> tuple[Capability, ...]:
        return tuple(replace(row, custody=Custody.NATIVE) for row in super().capabilities())


class OverstatingKeys(EmulatedProvider):
    """Its keys say that they are inside."""

    def generate(self, suite: Suite) -> tuple[KeySet, bytes]:
        keys, blob = super().generate(suite)
        keys.sig_custody = Custody.NATIVE
        return keys, blob


class WithoutEvidence(EmulatedProvider):
    def capabilities(self) -> tuple[Capability, ...]:
        return tuple(replace(row, evidence=" ") for row in super().capabilities())


class DenyingNothing(EmulatedProvider):
    def can(self, operation: Operation, algorithm: str, custody: Custody) -> bool:
        return True


class Falling(EmulatedProvider):
    """Falls back silently to what it can."""

    def require(self, suite: Suite, custody: Custody) -> None:
        pass


class _Wrapped(Keys):
    def __init__(self, keys: KeySet) -> None:
        assert isinstance(keys, Keys)
        super().__init__(keys.suite, keys.kem, keys.sig)


class Raising(EmulatedProvider):
    """Lets an error of its library through."""

    class _Keys(_Wrapped):
        def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
            try:
                return super().decrypt(enc, info, aad, ciphertext)
            except Exception as error:
                raise RuntimeError("CKR_GENERAL_ERROR") from error

    def generate(self, suite: Suite) -> tuple[KeySet, bytes]:
        keys, blob = super().generate(suite)
        return self._Keys(keys), blob

    def load(self, suite: Suite, blob: bytes) -> KeySet:
        return self._Keys(super().load(suite, blob))


class SigningDigests(EmulatedProvider):
    class _Keys(_Wrapped):
        def sign(self, message: bytes) -> bytes:
            return super().sign(message[:1024])

    def generate(self, suite: Suite) -> tuple[KeySet, bytes]:
        keys, blob = super().generate(suite)
        return self._Keys(keys), blob


class Forgetting(EmulatedProvider):
    """After a restart its keys are other ones."""

    def load(self, suite: Suite, blob: bytes) -> KeySet:
        super().load(suite, blob)
        return self.generate(suite)[0]


class Gullible(EmulatedProvider):
    """One key-encryption key for all: whoever has the device opens everything."""

    def __init__(self, request: ProviderRequest) -> None:
        super().__init__(request)
        self._kek = Secret.take(bytearray(b"k" * 32))


class Careless(EmulatedProvider):
    """Seals, and forgets what for."""

    def seal(self, purpose: bytes, secret: Secret) -> bytes:
        return super().seal(b"", secret)

    def unseal(self, purpose: bytes, blob: bytes) -> Secret:
        return super().unseal(b"", blob)


class CountingTwice(EmulatedProvider):
    class _Counter(FileCounter):
        def increment(self) -> int:
            super().increment()
            return super().increment()

    def counter(self) -> FileCounter:
        return self._Counter(self.device)


class CountingInMemory(EmulatedProvider):
    """A counter that a restart sets back."""

    def __init__(self, request: ProviderRequest) -> None:
        super().__init__(request)
        self._begin = FileCounter(self.device)
        self._begin.write("00" * 8, 1)

    def counter(self) -> FileCounter:
        return self._begin


class ClaimingToQuote(EmulatedProvider):
    def quote(self, nonce: bytes) -> Evidence | None:
        return None


class QuotingAnything(EmulatedProvider):
    def quote(self, nonce: bytes) -> Evidence | None:
        return Evidence("tpm2", b"key", nonce, b"signature")


class QuotingWithoutNonce(EmulatedProvider):
    def quote(self, nonce: bytes) -> Evidence | None:
        return super().quote(bytes(32))


class Undead(EmulatedProvider):
    """Works on after it was closed."""

    def close(self) -> None:
        pass


class DiscardingOnce(EmulatedProvider):
    def discard(self, suite: Suite, blob: bytes) -> None:
        before = len(list(self.device.folder.iterdir()))
        super().discard(suite, blob)
        if len(list(self.device.folder.iterdir())) == before:
            raise ProviderError("there is no such key")


@pytest.mark.parametrize(
    ("provider", "check"),
    [
        (Overstating, "keys are as claimed"),
        (OverstatingKeys, "keys are as claimed"),
        (WithoutEvidence, "claims have evidence"),
        (DenyingNothing, "claims have evidence"),
        (Falling, "a custody above the claim is refused"),
        (Raising, "what is encrypted opens"),
        (SigningDigests, "what is signed verifies"),
        (Forgetting, "keys come back"),
        (Gullible, "blobs open here and unchanged only"),
        (Gullible, "sealed secrets open here only"),
        (Careless, "sealed secrets open here only"),
        (CountingTwice, "the counter counts"),
        (CountingInMemory, "the counter counts"),
        (ClaimingToQuote, "quotes answer their nonce"),
        (QuotingAnything, "quotes answer their nonce"),
        (QuotingWithoutNonce, "quotes answer their nonce"),
        (Undead, "closed it does nothing"),
        (DiscardingOnce, "discarded twice is discarded once"),
    ],
)
def test_what_is_wrong_is_found(
    uri: str, monkeypatch: pytest.MonkeyPatch, provider: Callable[..., object], check: str
) -> None:
    monkeypatch.setitem(SCHEMES, emulated.SCHEME, provider)
    assert check in failed(uri)


def test_one_that_does_not_open_raises() -> None:
    with pytest.raises(ProviderError, match="no device"):
        conformance.run(f"{emulated.SCHEME}:")
