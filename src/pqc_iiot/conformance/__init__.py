"""What every security provider must do, as checks that anyone runs on their own provider:

    python -m pqc_iiot.conformance URI

They make keys of every suite that the provider claims, use them, try what must fail, and
take everything out of the hardware again. `run` is the same for programs.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ProviderError
from ..providers import Capability, PassphraseSource
from .checks import CHECKS, ViolationError
from .subject import Subject
from .times import timed

__all__ = ["KeyReport", "Outcome", "Report", "run"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check: whether it passed, and what it found, in a sentence."""

    check: str
    passed: bool
    found: str
    seconds: float


@dataclass(frozen=True, slots=True)
class KeyReport:
    """A key that was made: its custody as the key set says."""

    suite: int
    use: str
    algorithm: str
    custody: str


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. `capabilities` have times where they were measured."""

    uri: str
    scheme: str
    assurance: str
    outcomes: tuple[Outcome, ...]
    keys: tuple[KeyReport, ...]
    capabilities: tuple[Capability, ...]
    rollback_protected: bool

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(outcome.passed for outcome in self.outcomes)


def run(
    uri: str, passphrase: PassphraseSource | None = None, suites: Iterable[int] | None = None
) -> Report:
    """Runs every check on a new provider of `uri`, with all its suites or those given.

    Raises what opening the provider raises; from then on a failure is an outcome.
    """
    subject = Subject(uri, passphrase, suites)
    try:
        outcomes = tuple(_outcome(name, subject) for name in CHECKS)
        keys = tuple(
            KeyReport(suite.id, use, algorithm, custody.name)
            for suite, (made, _) in subject.made()
            for use, algorithm, custody in (
                ("kem", suite.kem.name, made.kem_custody),
                ("sig", suite.sig.name, made.sig_custody),
            )
        )
        capabilities: tuple[Capability, ...] = ()
        protected = False
        with contextlib.suppress(ProviderError):  # an outcome says so already
            counter = subject.provider.counter()
            protected = counter is not None and counter.rollback_protected
            capabilities = timed(subject)
        provider = subject.provider
        return Report(
            uri,
            provider.scheme,
            provider.assurance.name,
            outcomes,
            keys,
            capabilities,
            protected,
        )
    finally:
        subject.close()


def _outcome(name: str, subject: Subject) -> Outcome:
    since = time.perf_counter()
    try:
        found, passed = CHECKS[name](subject), True
    except ViolationError as violation:
        found, passed = str(violation), False
    except Exception as error:  # whatever a stranger's provider raises is a finding
        line = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__}: {error} ({line.filename}:{line.lineno})"
        passed = False
    return Outcome(name, passed, found, time.perf_counter() - since)
