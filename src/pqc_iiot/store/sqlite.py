"""The store in one SQLite file, in WAL mode with a full fsync at each commit.

Each row carries a revision from one counter, used once, and a MAC over everything in it.
The ledger keeps, for every table, the number of its rows and the sum of a MAC of each row
without its value (a multiset hash, doi:10.1007/978-3-540-40061-5_12), and changes with
them in the same transaction. At opening all of it is computed again: the table itself is
read, in the order that look-ups rely on, and each index is compared with it. So a row that
was put back, removed, added or hidden from a look-up shows before anything is believed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from .. import cose
from .._core import Secret
from ..errors import StateError, StateTamperedError
from . import PEERS, PENDING, TABLES, Row, Store, StoreStats

_CHECKPOINT_COMMITS = 256
"""WAL frames are copied into the database this often. Each time costs two fsyncs, and a third
for the header of the WAL, which begins anew."""

_LEDGER = "CREATE TABLE ledger (id INTEGER PRIMARY KEY, value BLOB NOT NULL, mac BLOB NOT NULL)"
# The value comes last, so that reading the rest of a row leaves its overflow pages alone.
_TABLE = """CREATE TABLE {table} (key BLOB PRIMARY KEY, revision INTEGER NOT NULL,
kid BLOB NOT NULL, name TEXT NOT NULL, mac BLOB NOT NULL, value BLOB NOT NULL) WITHOUT ROWID"""
_INDEX = "CREATE INDEX {table}_{column} ON {table} ({column})"
_INDEXES = [(table, column) for table in (PEERS, PENDING) for column in ("kid", "name")]
_SCHEMA = [
    _LEDGER,
    *(_TABLE.format(table=table) for table in TABLES),
    *(_INDEX.format(table=table, column=column) for table, column in _INDEXES),
]

_MODULUS = 1 << 256

_Raw = tuple[bytes, int, bytes, str, bytes, bytes]
"""A row as it is stored: key, revision, kid, name, mac, value."""


class SqliteStore(Store):
    """See `Store`; `path` None keeps it in memory."""

    def __init__(self, path: Path | None, mac_key: Secret, *, create: bool) -> None:
        self._key = mac_key
        self._path = path
        self._commits = self._fsyncs = self._written = 0
        self._watched: list[int] = []
        self._revision = 0
        self._ledger: dict[str, tuple[int, int]] = dict.fromkeys(TABLES, (0, 0))
        self._dirty = False
        if path is not None:
            self._check_file(path, create)
        with _translated():
            self._db = sqlite3.connect(
                path or ":memory:", isolation_level=None, check_same_thread=False, timeout=0
            )
            self._db.text_factory = _text
            try:
                self._prepare(create)
            except BaseException:
                self._db.close()
                raise
        self._watched = [] if path is None else [os.open(path, os.O_PATH | os.O_CLOEXEC)]

    def _check_names(self) -> None:
        """Raises `StateError` where the files have lost their names: SQLite would go on and
        call durable what nobody ever finds again."""
        if len(self._watched) == 1 and self._path is not None:
            # The log is there from the first transaction on, until the store is closed.
            with contextlib.suppress(FileNotFoundError):
                log = f"{self._path}-wal"
                self._watched.append(os.open(log, os.O_PATH | os.O_CLOEXEC))
        if not all(os.fstat(fd).st_nlink for fd in self._watched):
            raise StateError(
                f"{self._path} was removed or replaced while the device was running",
                hint="stop it; put the folder back as it is now, or restore a backup:"
                " pqc-iiot restore FILE",
            )

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
        # As sqlite.org/security.html says for files that others may have written to.
        execute("PRAGMA trusted_schema=OFF")
        execute("PRAGMA cell_size_check=ON")
        if create:
            with self.transaction():
                for statement in _SCHEMA:
                    execute(statement)
                self._dirty = True
        else:
            self._check_schema()
            self._load_ledger()
            for table in TABLES:
                self._check_rows(table)
            for table, column in _INDEXES:
                self._check_index(table, column)

    def _check_schema(self) -> None:
        # Triggers, views and partial indexes can make any table look as it should.
        found = self._db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
        if sorted(sql for (sql,) in found) != sorted(_SCHEMA):
            raise _tampered("its tables are other ones")

    def _load_ledger(self) -> None:
        match self._db.execute("SELECT value, mac FROM ledger").fetchall():
            case [(bytes(value), bytes(mac))] if self._key.verify_mac(b"ledger" + value, mac):
                pass
            case _:
                raise _tampered("its ledger is not authentic")
        match cose.loads(value, 1024, "the ledger", StateTamperedError):
            case [int(revision), Mapping() as ledger] if set(ledger) == set(TABLES):
                self._revision = revision
                self._ledger = {
                    table: (count, int.from_bytes(digest, "big"))
                    for table, (count, digest) in ledger.items()
                }
            case _:
                raise _tampered("its ledger has another shape")

    def _check_rows(self, table: str) -> None:
        count = digest = 0
        before = b""
        # The column `mac` is in no index: so the rows are read, and in the key's order.
        query = f"SELECT key, revision, kid, name, mac FROM {table}"  # noqa: S608 - all ours
        for key, *rest, _ in self._db.execute(query):
            if not (isinstance(key, bytes) and before < key):
                raise _tampered(f"rows of {table} are not where look-ups find them")
            count, digest, before = count + 1, digest + self._digest(table, key, *rest), key
        if (count, digest % _MODULUS) != self._ledger[table]:
            raise _tampered(f"rows of {table} were removed, added, edited or put back")

    def _check_index(self, table: str, column: str) -> None:
        index = f"{table}_{column}"
        query = (
            f"SELECT COUNT(*) FROM {table} AS t WHERE t.mac <> x'' AND EXISTS ("  # noqa: S608
            f"SELECT 1 FROM {table} AS i INDEXED BY {index}"
            f" WHERE i.{column} = t.{column} AND i.key = t.key)"
            f" UNION ALL SELECT COUNT({column}) FROM {table} INDEXED BY {index}"
        )
        if {count for (count,) in self._db.execute(query)} != {self._ledger[table][0]}:
            raise _tampered(f"{index} does not lead to every row")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Store`."""
        before = self._revision, dict(self._ledger)
        try:
            with _translated():
                self._db.execute("BEGIN IMMEDIATE")
                yield
                if self._dirty:
                    self._write_ledger()
                self._check_names()
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
        ledger = {
            table: [count, digest.to_bytes(32, "big")]
            for table, (count, digest) in self._ledger.items()
        }
        value = cose.dumps([self._revision, ledger])
        self._db.execute(
            "INSERT OR REPLACE INTO ledger VALUES (1, ?, ?)",
            (value, self._key.mac(b"ledger" + value)),
        )

    def _checkpoint(self) -> None:
        # What it cannot copy now it copies the next time: the commits are durable already.
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._fsyncs += 3

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

    def version(self, table: str) -> bytes:
        """See `Store`."""
        return self._ledger[table][1].to_bytes(32, "big")

    def _select(self, table: str, where: str, *arguments: object) -> Iterator[Row]:
        with _translated():
            query = f"SELECT * FROM {table} {where}"  # noqa: S608 - all ours
            for raw in self._db.execute(query, arguments):
                yield self._authentic(table, raw)

    def _authentic(self, table: str, raw: _Raw) -> Row:
        key, revision, kid, name, mac, value = raw
        signed = _to_be_authenticated(table, key, revision, kid, name, value)
        if not (isinstance(mac, bytes) and self._key.verify_mac(signed, mac)):
            raise _tampered(f"a row of {table} is not authentic")
        return Row(key, value, kid, name)

    def put(self, table: str, row: Row) -> None:
        """See `Store`."""
        self._discount(table, row.key)
        self._revision += 1
        head = (row.key, self._revision, row.kid, row.name)
        mac = self._key.mac(_to_be_authenticated(table, *head, row.value))
        self._db.execute(
            f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
            (*head, mac, row.value),
        )
        count, digest = self._ledger[table]
        self._ledger[table] = count + 1, (digest + self._digest(table, *head)) % _MODULUS
        self._written += 1
        self._dirty = True

    def delete(self, table: str, key: bytes) -> None:
        """See `Store`."""
        if self._discount(table, key):
            self._db.execute(f"DELETE FROM {table} WHERE key = ?", (key,))  # noqa: S608
            self._dirty = True

    def _discount(self, table: str, key: bytes) -> bool:
        """Takes a row out of the ledger, if it is there."""
        query = f"SELECT key, revision, kid, name FROM {table} WHERE key = ?"  # noqa: S608
        old = self._db.execute(query, (key,)).fetchone()
        if old is not None:
            count, digest = self._ledger[table]
            self._ledger[table] = count - 1, (digest - self._digest(table, *old)) % _MODULUS
        return old is not None

    def _digest(self, table: str, *head: object) -> int:
        """What a row adds to its table's sum. (A row's own MAC is over six parts.)"""
        return int.from_bytes(self._key.mac(cose.dumps([table, *head])), "big")

    def stats(self) -> StoreStats:
        """See `Store`."""
        return StoreStats(self._commits, self._fsyncs, self._written)

    def close(self) -> None:
        """See `Store`."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        while self._watched:
            os.close(self._watched.pop())

    def abandon(self) -> None:
        """See `Store`."""
        # Closing would check-point and remove the WAL that the parent goes on writing
        # (sqlite.org/howtocorrupt.html, 2.6), and so would the interpreter at its end: a
        # reference that nobody gives back keeps the connection open until the process ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _tampered("a text is not UTF-8") from None


def _to_be_authenticated(table: str, *parts: object) -> bytes:
    return cose.dumps([table, *parts])


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
    except sqlite3.ProgrammingError as cause:
        raise StateError(f"the state is not open: {cause}") from cause
    except sqlite3.OperationalError as cause:
        raise StateError(
            f"the state cannot be read or written: {cause}",
            hint="check free space, permissions, and that no other program has the file open",
        ) from cause
    except sqlite3.DatabaseError as cause:
        raise _tampered(str(cause)) from cause
