"""The store in one SQLite file, in WAL mode with a full fsync at each commit.

Each row carries a revision from one counter and a MAC over everything in it. The ledger
row keeps, for every table, the number of rows and the sum of their revisions, and changes
with them in the same transaction. Putting back any older rows lowers the sum, and no row
can be given a higher revision than it last had, so a partial rollback always shows.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import cose
from .._core import Secret
from ..errors import StateError, StateTamperedError
from . import TABLES, Row, Store, StoreStats

_CHECKPOINT_COMMITS = 256
"""WAL frames are copied into the database this often; each time costs two fsyncs."""

_LAYOUT = """
CREATE TABLE {table} (
    key BLOB PRIMARY KEY, kid BLOB NOT NULL, name TEXT NOT NULL,
    value BLOB NOT NULL, revision INTEGER NOT NULL, mac BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX {table}_revision ON {table} (revision);
"""
_INDEXED = """
CREATE INDEX {table}_kid ON {table} (kid);
CREATE INDEX {table}_name ON {table} (name);
"""
_LEDGER = "CREATE TABLE ledger (id INTEGER PRIMARY KEY, value BLOB NOT NULL, mac BLOB NOT NULL);"
_COLUMNS = "key, kid, name, value, revision, mac"

_Raw = tuple[bytes, bytes, str, bytes, int, bytes]


class SqliteStore(Store):
    """See `Store`; `path` None keeps it in memory."""

    def __init__(self, path: Path | None, mac_key: Secret, *, create: bool) -> None:
        self._key = mac_key
        self._path = path
        self._commits = self._fsyncs = self._written = 0
        self._revision = 0
        self._ledger: dict[str, list[int]] = {table: [0, 0] for table in TABLES}
        self._dirty = False
        if path is not None:
            self._check_file(path, create)
        with _translated():
            self._db = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=False, timeout=0
            )
            try:
                self._prepare(create)
            except BaseException:
                self._db.close()
                raise

    @staticmethod
    def _check_file(path: Path, create: bool) -> None:
        if create:
            # Made here and not by SQLite, so that its mode is right from the start.
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                os.close(os.open(path, flags, 0o600))
            except OSError as cause:
                raise StateError(f"{path} cannot be made: {cause.strerror}") from cause
        elif not path.exists():
            raise StateError(
                f"the state file {path} is missing: what was seen and used is unknown",
                hint="put the file back, or make new keys with: pqc-iiot recover",
            )

    def _prepare(self, create: bool) -> None:
        execute = self._db.execute
        execute("PRAGMA locking_mode=EXCLUSIVE")
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA wal_autocheckpoint=0")
        execute("PRAGMA trusted_schema=OFF")
        if create:
            script = [_LEDGER, *(_LAYOUT.format(table=table) for table in TABLES)]
            script += [_INDEXED.format(table=table) for table in ("peers", "pending")]
            self._db.executescript(f"BEGIN; {''.join(script)} COMMIT;")
            with self.transaction():
                self._dirty = True
        else:
            self._load_ledger()

    def _load_ledger(self) -> None:
        row = self._db.execute("SELECT value, mac FROM ledger WHERE id = 1").fetchone()
        if row is None or not self._key.verify_mac(b"ledger" + row[0], row[1]):
            raise _tampered("its ledger is not authentic")
        match cose.loads(row[0], 1024, "the ledger", StateTamperedError):
            case [int(revision), Mapping() as ledger] if set(ledger) == set(TABLES):
                self._revision = revision
                self._ledger = {table: [*ledger[table]] for table in TABLES}
            case _:
                raise _tampered("its ledger has another shape")
        for table, expected in self._ledger.items():
            found = self._db.execute(
                f"SELECT COUNT(*), COALESCE(SUM(revision), 0) FROM {table}"  # noqa: S608 - ours
            ).fetchone()
            if list(found) != expected:
                raise _tampered(f"rows of {table} were removed, added or put back")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Store`."""
        before = self._revision, {table: [*row] for table, row in self._ledger.items()}
        try:
            with _translated():
                self._db.execute("BEGIN IMMEDIATE")
                yield
                if self._dirty:
                    self._write_ledger()
                self._db.execute("COMMIT")
        except BaseException:
            self._revision, self._ledger = before
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise
        finally:
            self._dirty = False
        self._commits += 1
        self._fsyncs += 1
        if self._commits % _CHECKPOINT_COMMITS == 0:
            self._checkpoint()

    def _write_ledger(self) -> None:
        value = cose.dumps([self._revision, self._ledger])
        self._db.execute(
            "INSERT OR REPLACE INTO ledger VALUES (1, ?, ?)",
            (value, self._key.mac(b"ledger" + value)),
        )

    def _checkpoint(self) -> None:
        # What it cannot copy now it copies the next time: the commits are durable already.
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._fsyncs += 2

    def get(self, table: str, key: bytes) -> Row | None:
        """See `Store`."""
        found = self._select(table, "WHERE key = ?", key)
        return next(found, None)

    def find(self, table: str, *, kid: bytes = b"", name: str = "") -> list[Row]:
        """See `Store`."""
        if kid:
            return list(self._select(table, "WHERE kid = ? ORDER BY revision", kid))
        return list(self._select(table, "WHERE name = ? ORDER BY revision", name))

    def rows(self, table: str) -> Iterator[Row]:
        """See `Store`."""
        return self._select(table, "ORDER BY revision")

    def count(self, table: str) -> int:
        """See `Store`."""
        return self._ledger[table][0]

    def _select(self, table: str, where: str, *arguments: object) -> Iterator[Row]:
        with _translated():
            query = f"SELECT {_COLUMNS} FROM {table} {where}"  # noqa: S608 - all ours
            for raw in self._db.execute(query, arguments):
                yield self._authentic(table, raw)

    def _authentic(self, table: str, raw: _Raw) -> Row:
        key, kid, name, value, revision, mac = raw
        if not (
            isinstance(revision, int)
            and isinstance(mac, bytes)
            and self._key.verify_mac(_to_be_authenticated(table, raw), mac)
        ):
            raise _tampered(f"a row of {table} is not authentic")
        return Row(key, value, kid, name)

    def put(self, table: str, row: Row) -> None:
        """See `Store`."""
        old = self._revision_of(table, row.key)
        self._revision += 1
        raw = (row.key, row.kid, row.name, row.value, self._revision)
        mac = self._key.mac(_to_be_authenticated(table, raw))
        self._db.execute(
            f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
            (*raw, mac),
        )
        entry = self._ledger[table]
        entry[0] += old is None
        entry[1] += self._revision - (old or 0)
        self._written += 1
        self._dirty = True

    def delete(self, table: str, key: bytes) -> None:
        """See `Store`."""
        old = self._revision_of(table, key)
        if old is not None:
            self._db.execute(f"DELETE FROM {table} WHERE key = ?", (key,))  # noqa: S608
            self._ledger[table][0] -= 1
            self._ledger[table][1] -= old
            self._dirty = True

    def _revision_of(self, table: str, key: bytes) -> int | None:
        query = f"SELECT revision FROM {table} WHERE key = ?"  # noqa: S608
        found = self._db.execute(query, (key,)).fetchone()
        return None if found is None else int(found[0])

    def stats(self) -> StoreStats:
        """See `Store`."""
        return StoreStats(self._commits, self._fsyncs, self._written)

    def close(self) -> None:
        """See `Store`."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def _to_be_authenticated(table: str, raw: tuple[object, ...]) -> bytes:
    return cose.dumps([table, *raw[:5]])


def _tampered(what: str) -> StateTamperedError:
    return StateTamperedError(
        f"the state file was changed from outside: {what}",
        hint="find out who can write to the state folder, then: pqc-iiot recover",
    )


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as ours: damage is told from what a full disk does."""
    try:
        yield
    except sqlite3.OperationalError as cause:
        raise StateError(
            f"the state cannot be read or written: {cause}",
            hint="check free space, permissions, and that no other program has the file open",
        ) from cause
    except sqlite3.DatabaseError as cause:
        raise _tampered(str(cause)) from cause
