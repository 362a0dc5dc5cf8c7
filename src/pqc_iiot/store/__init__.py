"""Tables and their transactions. What the numbers in them mean is for others to know.

Every row is authenticated under a key of the device: one that was edited, swapped, removed,
hidden or put back is noticed at opening or when it is read. The whole store put back to an
older state is not, from the inside: that is what the anchor (`pqc_iiot.anchor`) is for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from .._core import Secret
from ..errors import InvalidInputError

META, PEERS, PENDING, SEEN = "meta", "peers", "pending", "seen"
TABLES = (META, PEERS, PENDING, SEEN)


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its key, two secondary keys where it has any, and its value."""

    key: bytes
    value: bytes
    kid: bytes = b""
    name: str = ""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Commits, the fsyncs they and checkpoints cost, and rows written."""

    commits: int
    fsyncs: int
    rows: int


class Store(ABC):
    """Authenticated tables. Reads see what the open transaction has written."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing; durable when it has been left without an exception.

        `StateError` where it cannot be made durable: nothing of it has happened then.
        """

    @abstractmethod
    def get(self, table: str, key: bytes) -> Row | None:
        """The row with this key. `StateTamperedError` where it is not authentic."""

    @abstractmethod
    def find(self, table: str, *, kid: bytes = b"", name: str = "") -> list[Row]:
        """The rows with this secondary key, oldest change first."""

    @abstractmethod
    def rows(self, table: str) -> Iterator[Row]:
        """Every row, oldest change first."""

    @abstractmethod
    def count(self, table: str) -> int:
        """How many rows there are."""

    @abstractmethod
    def version(self, table: str) -> bytes:
        """32 bytes that are others after each change of a table."""

    @abstractmethod
    def put(self, table: str, row: Row) -> None:
        """Writes a row, replacing the one with its key; inside a transaction only."""

    @abstractmethod
    def delete(self, table: str, key: bytes) -> None:
        """Removes a row if it is there; inside a transaction only."""

    @abstractmethod
    def stats(self) -> StoreStats:
        """What has been written since the store was opened."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""

    @abstractmethod
    def abandon(self) -> None:
        """In a forked child: never touches again what the parent has open."""


def open_store(url: str, folder: Path, mac_key: Secret, *, create: bool = False) -> Store:
    """Opens (or with `create` makes) the store that `url` names.

    `sqlite:FILE` is relative to `folder`; `memory:` is for tests and measurements and
    keeps nothing. `StateError` where it is missing, damaged or not ours.
    """
    scheme, _, path = url.partition(":")
    from .sqlite import SqliteStore

    if scheme == "memory" and not path:
        return SqliteStore(None, mac_key, create=True)
    if scheme == "sqlite" and path:
        return SqliteStore(folder / path, mac_key, create=create)
    raise InvalidInputError(f"no store is known for {url!r}", hint="sqlite:FILE or memory:")
