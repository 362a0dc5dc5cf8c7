"""Tables, their transactions, and what a failing disk does to them."""

from __future__ import annotations

import resource
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pqc_iiot import InvalidInputError, StateError
from pqc_iiot._core import Secret
from pqc_iiot.errors import StateTamperedError
from pqc_iiot.store import META, PEERS, PENDING, SEEN, TABLES, Row, Store, open_store

KEY = Secret.random()


def put(store: Store, table: str, *rows: Row) -> None:
    with store.transaction():
        for row in rows:
            store.put(table, row)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    open_store("sqlite:state.db", tmp_path, KEY, create=True).close()
    return tmp_path / "state.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    store = open_store("sqlite:state.db", file.parent, KEY)
    yield store
    store.close()


def test_rows_come_back(store: Store, file: Path) -> None:
    row = Row(b"key", b"value", b"kid", "name")
    put(store, PEERS, row)
    closed = False
    for _ in range(2):
        again = open_store("sqlite:state.db", file.parent, KEY) if closed else store
        assert again.get(PEERS, b"key") == row
        assert again.find(PEERS, kid=b"kid") == again.find(PEERS, name="name") == [row]
        assert list(again.rows(PEERS)) == [row]
        assert [again.count(table) for table in TABLES] == [0, 1, 0, 0]
        assert again.get(PENDING, b"key") is None
        assert again.get(PEERS, b"ke") is None
        assert again.find(PEERS, name="Name") == []
        again.close()
        closed = True


def test_the_file_belongs_to_its_owner_alone(file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600


def test_later_rows_come_last(store: Store) -> None:
    rows = [Row(bytes([i]), b"", b"k", "n") for i in (3, 1, 2)]
    put(store, PEERS, *rows)
    assert list(store.rows(PEERS)) == store.find(PEERS, name="n") == rows
    put(store, PEERS, rows[0])
    assert store.find(PEERS, kid=b"k") == [rows[1], rows[2], rows[0]]


def test_a_transaction_is_all_or_nothing(store: Store, file: Path) -> None:
    put(store, META, Row(b"a", b"1"), Row(b"b", b"1"))
    commits = store.stats().commits

    def fail() -> None:
        with store.transaction():
            store.put(META, Row(b"a", b"2"))
            store.put(META, Row(b"c", b"2"))
            store.delete(META, b"b")
            assert store.get(META, b"a") == Row(b"a", b"2")  # reads see what was written
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {row.key: row.value for row in store.rows(META)} == {b"a": b"1", b"b": b"1"}
    assert store.stats().commits == commits
    put(store, META, Row(b"a", b"3"))
    store.close()
    with open_store("sqlite:state.db", file.parent, KEY).transaction():
        pass


def test_a_store_is_named_by_url(tmp_path: Path) -> None:
    for url in ("", "sqlite:", "memory:x", "postgres://db", "sqlite"):
        with pytest.raises(InvalidInputError, match="no store is known"):
            open_store(url, tmp_path, KEY)


def test_a_missing_file_is_not_a_fresh_one(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="missing") as caught:
        open_store("sqlite:state.db", tmp_path, KEY)
    assert "pqc-iiot recover" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_no_store_is_made_over_another(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(StateError, match="cannot be made"):
        open_store("sqlite:state.db", file.parent, KEY, create=True)
    assert file.read_bytes() == before


def test_another_program_has_it_open(file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StateError, match="locked") as caught:
        open_store("sqlite:state.db", file.parent, KEY)
    assert type(caught.value) is StateError
    other.close()
    store = open_store("sqlite:state.db", file.parent, KEY)
    other = sqlite3.connect(file, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT * FROM seen").fetchall()
    other.close()
    store.close()


def test_after_close(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StateError, match="not open") as caught:
        store.get(META, b"a")
    assert type(caught.value) is StateError
    with pytest.raises(StateError, match="not open"), store.transaction():
        pass


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Files that grow beyond `size` bytes fail, as on a full disk."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("size", [0, 4096, 10_000, 40_000, 80_000])
def test_a_full_disk_loses_nothing_that_was_durable(file: Path, size: int) -> None:
    store = open_store("sqlite:state.db", file.parent, KEY)
    written = -1

    def fill() -> None:
        nonlocal written
        for i in range(100):
            put(store, SEEN, Row(b"key", b"%d" % i + bytes(3000)))
            written = i

    with small_disk(size):
        with pytest.raises(StateError) as caught:
            fill()
        assert type(caught.value) is StateError
        assert "free space" in caught.value.hint
        row = store.get(SEEN, b"key")
        assert (row is None) == (written < 0)
        assert row is None or row.value.startswith(b"%d\0" % written)
    put(store, SEEN, Row(b"key", b"after"))
    store.close()
    store = open_store("sqlite:state.db", file.parent, KEY)
    assert store.get(SEEN, b"key") == Row(b"key", b"after")
    store.close()


def test_the_log_of_writes_stays_bounded(store: Store, file: Path) -> None:
    for i in range(1200):
        put(store, SEEN, Row(b"key", b"%d" % i))
    assert Path(f"{file}-wal").stat().st_size < 8 << 20
    stats = store.stats()
    assert stats.commits == stats.rows == 1200
    assert stats.fsyncs >= 1200


@pytest.mark.parametrize(
    ("table", "row"),
    [
        (META, Row(b"", b"")),
        (META, Row(b"\0" * 100, b"\0" * 100_000)),
        (PEERS, Row(b"k", b"v", b"\0\xff", "ä\N{ROCKET}'\"; DROP TABLE peers; --")),
    ],
)
def test_any_bytes_and_any_text(store: Store, table: str, row: Row) -> None:
    put(store, table, row)
    assert store.get(table, row.key) == row
    assert not row.name or store.find(table, name=row.name) == [row]


def test_another_devices_key_opens_nothing(file: Path) -> None:
    with pytest.raises(StateTamperedError):
        open_store("sqlite:state.db", file.parent, Secret.random())


class AgainstADictionary(RuleBasedStateMachine):
    """Whatever is put, deleted, rolled back and reopened: the store is a dictionary."""

    keys = st.sampled_from([b"a", b"b", b"c"])

    @initialize()
    def start(self) -> None:
        self.store = open_store("memory:", Path(), KEY, create=True)
        self.model: dict[bytes, Row] = {}

    @rule(key=keys, value=st.binary(max_size=9), kid=keys, fail=st.booleans())
    def put(self, key: bytes, value: bytes, kid: bytes, fail: bool) -> None:
        row = Row(key, value, kid, kid.decode())
        try:
            with self.store.transaction():
                self.store.put(PEERS, row)
                if fail:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        self.model.pop(key, None)
        self.model[key] = row

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        with self.store.transaction():
            self.store.delete(PEERS, key)
        self.model.pop(key, None)

    @invariant()
    def same(self) -> None:
        rows = list(self.model.values())
        assert list(self.store.rows(PEERS)) == rows
        assert self.store.count(PEERS) == len(rows)
        for kid in (b"a", b"b", b"c"):
            assert self.store.find(PEERS, kid=kid) == [row for row in rows if row.kid == kid]
        self.store._check_rows(PEERS)  # type: ignore[attr-defined]
        self.store._check_index(PEERS, "kid")  # type: ignore[attr-defined]


AgainstADictionary.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestAgainstADictionary = AgainstADictionary.TestCase
