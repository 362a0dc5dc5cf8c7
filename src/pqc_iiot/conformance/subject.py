"""The provider under test: opened, its keys made once, and everything removed at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from ..errors import PqcIiotError
from ..providers import Custody, KeySet, Operation, PassphraseSource, SecurityProvider
from ..providers.registry import open_provider
from ..suites import SUITES, Suite


class Subject:
    """One new provider of a URI."""

    def __init__(
        self, uri: str, passphrase: PassphraseSource | None, suites: Iterable[int] | None
    ) -> None:
        self.uri, self._passphrase = uri, passphrase
        self.provider: SecurityProvider = open_provider(uri, None, passphrase)
        self.header = self.provider.header
        self._wanted = None if suites is None else frozenset(suites)
        self._made: dict[int, tuple[KeySet, bytes]] = {}

    def reopen(self) -> SecurityProvider:
        """Closes the provider and opens the same one again, as after a restart. Keys made
        before are loaded anew when they are asked for."""
        self.provider.close()
        self.provider = open_provider(self.uri, self.header, self._passphrase)
        for number, (_, blob) in self._made.items():
            self._made[number] = self.provider.load(SUITES[number], blob), blob
        return self.provider

    @contextlib.contextmanager
    def another(self) -> Iterator[SecurityProvider]:
        """A second new provider of the same URI, beside the first."""
        other = open_provider(self.uri, None, self._passphrase)
        try:
            yield other
        finally:
            other.erase()
            other.close()

    def suites(self) -> list[Suite]:
        """The suites that the provider claims, of those wanted."""
        return [
            suite
            for suite in SUITES.values()
            if (self._wanted is None or suite.id in self._wanted)
            and self.provider.can(Operation.DECRYPT, suite.kem.name, Custody.SOFTWARE)
            and self.provider.can(Operation.SIGN, suite.sig.name, Custody.SOFTWARE)
        ]

    def keys(self, suite: Suite) -> tuple[KeySet, bytes]:
        """A key set of a suite and its blob, made when first asked for."""
        if suite.id not in self._made:
            self._made[suite.id] = self.provider.generate(suite)
        return self._made[suite.id]

    def made(self) -> Iterator[tuple[Suite, tuple[KeySet, bytes]]]:
        """The key sets that were made."""
        return ((SUITES[number], made) for number, made in self._made.items())

    def close(self) -> None:
        """Takes out of the hardware what was made there, as far as it lets us."""
        for suite, (_, blob) in self.made():
            with contextlib.suppress(PqcIiotError):
                self.provider.discard(suite, blob)
        with contextlib.suppress(PqcIiotError):
            self.provider.erase()
        self.provider.close()
