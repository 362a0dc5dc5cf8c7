"""The store's file in the hands of somebody who knows SQLite but not the device's key.

What was changed is noticed at opening, or when the row is read: never believed."""

from __future__ import annotations

import itertools
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from devices import edited
from pqc_iiot import StateError
from pqc_iiot._core import Secret
from pqc_iiot.errors import StateTamperedError
from pqc_iiot.store import META, PEERS, PENDING, SEEN, TABLES, Row, Store, open_store

KEY = Secret.random()
NAMES = ("alpha", "beta", "gamma")
COLUMNS = ("key", "revision", "kid", "name", "mac", "value")
Edit = Callable[[sqlite3.Connection], object]


def fill(store: Store, text: str) -> None:
    with store.transaction():
        for table in TABLES:
            for name in NAMES:
                key = name.encode() * 6
                store.put(table, Row(key, f"{text} {name}".encode() * 200, key[:8], name))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, `new`, and an older copy of it, `old`."""
    folder = tmp_path_factory.mktemp("store")
    store = open_store("sqlite:new", folder, KEY, create=True)
    fill(store, "approved")
    store.close()
    shutil.copy2(folder / "new", folder / "old")
    store = open_store("sqlite:new", folder, KEY)
    fill(store, "revoked")
    store.close()
    return folder


@pytest.fixture
def file(template: Path, tmp_path: Path) -> Path:
    shutil.copy2(template / "new", tmp_path / "state.db")
    return tmp_path / "state.db"


def read_all(file: Path) -> list[list[Row]]:
    """Reads everything in every way."""
    store = open_store(f"sqlite:{file.name}", file.parent, KEY)
    try:
        found = [list(store.rows(table)) for table in TABLES]
        for table, name in itertools.product(TABLES, NAMES):
            row = store.get(table, name.encode() * 6)
            assert row is not None, "a row is hidden"
            if table in (PEERS, PENDING):
                assert store.find(table, name=name) == [row], "a row is hidden"
                assert store.find(table, kid=row.kid) == [row], "a row is hidden"
        return found
    finally:
        store.close()


def must_be_noticed(file: Path) -> None:
    with pytest.raises(StateTamperedError) as caught:
        read_all(file)
    assert caught.value.exit_code == 4
    assert "pqc-iiot recover" in caught.value.hint


def test_the_file_itself(file: Path) -> None:
    found = read_all(file)
    assert [len(rows) for rows in found] == [3, 3, 3, 3]
    assert all(row.value.startswith(b"revoked") for rows in found for row in rows)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    "value",
    [0, 1, 2**62, -1, 1.5, "", "alpha", "'", b"", b"\0", b"alpha" * 6, None, bytes(100_000)],
    ids=lambda value: repr(value)[:12],
)
def test_any_column_of_any_row(file: Path, table: str, column: str, value: object) -> None:
    with edited(file) as db:
        before = db.execute(f"SELECT * FROM {table} WHERE name = 'beta'").fetchone()
        try:
            db.execute(f"UPDATE {table} SET {column} = ? WHERE name = 'beta'", (value,))
        except sqlite3.IntegrityError:
            return  # SQLite itself does not let it happen
        if db.execute(f"SELECT * FROM {table} WHERE key = ?", before[:1]).fetchone() == before:
            return
    must_be_noticed(file)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("column", COLUMNS)
def test_swapped_columns_of_two_rows(file: Path, table: str, column: str) -> None:
    with edited(file) as db:
        values = dict(db.execute(f"SELECT name, {column} FROM {table} WHERE name < 'c'"))
        if column == "key":
            db.execute(f"UPDATE {table} SET key = x'00' WHERE name = 'alpha'")
        other = {"alpha": values["beta"], "beta": values["alpha"]}
        keys = dict(db.execute(f"SELECT name, key FROM {table} WHERE name < 'c'"))
        for name, value in sorted(other.items(), reverse=True):
            db.execute(f"UPDATE {table} SET {column} = ? WHERE key = ?", (value, keys[name]))
    must_be_noticed(file)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_removed_rows(file: Path, table: str, count: int) -> None:
    with edited(file) as db:
        for name in NAMES[:count]:
            db.execute(f"DELETE FROM {table} WHERE name = ?", (name,))
    must_be_noticed(file)


@pytest.mark.parametrize("table", TABLES)
def test_added_rows(file: Path, table: str) -> None:
    with edited(file) as db:
        row = db.execute(f"SELECT * FROM {table} WHERE name = 'beta'").fetchone()
        db.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)", (b"new" * 9, *row[1:]))
    must_be_noticed(file)


def older(template: Path, table: str, name: str) -> tuple[object, ...]:
    with edited(template / "old") as db:
        row: tuple[object, ...] = db.execute(
            f"SELECT * FROM {table} WHERE name = ?", (name,)
        ).fetchone()
        return row


def put_back(db: sqlite3.Connection, table: str, row: tuple[object, ...]) -> None:
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?, ?)", row)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("names", [NAMES[:1], NAMES[1:], NAMES])
def test_rows_put_back(template: Path, file: Path, table: str, names: tuple[str, ...]) -> None:
    """Each of them was authentic once: a revoked peer as it was when it was approved."""
    with edited(file) as db:
        for name in names:
            put_back(db, table, older(template, table, name))
    must_be_noticed(file)


@pytest.mark.parametrize("table", TABLES)
def test_a_row_put_back_and_another_sacrificed(template: Path, file: Path, table: str) -> None:
    """The sums of revisions are as they should be; one row that is never read pays."""
    old = older(template, table, "alpha")
    with edited(file) as db:
        query = f"SELECT revision FROM {table} WHERE name = 'alpha'"
        gap = db.execute(query).fetchone()[0] - int(str(old[1]))
        put_back(db, table, old)
        db.execute(f"UPDATE {table} SET revision = revision + ? WHERE name = 'beta'", (gap,))
    with pytest.raises(StateTamperedError):
        open_store("sqlite:state.db", file.parent, KEY)


@pytest.mark.parametrize("column", ["kid", "name"])
@pytest.mark.parametrize("table", [PEERS, PENDING])
def test_a_row_hidden_from_an_index(file: Path, table: str, column: str) -> None:
    """The index says nothing of a row, or calls it something else; the table is untouched."""
    index = f"{table}_{column}"
    for edit in (f"DELETE FROM {table} WHERE name = 'beta'", f"UPDATE {table} SET {column} = 'x'"):
        copy = file.with_name("copy")
        shutil.copy2(file, copy)
        with edited(copy) as db:
            rows = db.execute(f"SELECT * FROM {table}").fetchall()
            entry = db.execute("SELECT * FROM sqlite_schema WHERE name = ?", (index,)).fetchone()
            db.execute(edit)
            db.execute("PRAGMA writable_schema=ON")
            db.execute("DELETE FROM sqlite_schema WHERE name = ?", (index,))
        with edited(copy) as db:  # without the index
            db.execute(f"DELETE FROM {table}")
            for row in rows:
                put_back(db, table, row)
            db.execute("PRAGMA writable_schema=ON")
            db.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", entry)
        with edited(copy) as db:
            assert db.execute(f"SELECT * FROM {table} NOT INDEXED").fetchall() == rows
            assert db.execute("PRAGMA integrity_check").fetchone() != ("ok",)
        with pytest.raises(StateTamperedError):
            open_store("sqlite:copy", file.parent, KEY)


def test_rows_out_of_order_are_not_found_by_look_ups(file: Path) -> None:
    """Two cells of a page change places: a scan still finds all, a search does not."""
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    with edited(file) as db:
        page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'meta'").fetchone()[0]
    start = (page - 1) * size
    assert data[start] == 10  # a leaf of an index tree, sqlite.org/fileformat.html
    one, other = slice(start + 8, start + 10), slice(start + 10, start + 12)
    data[one], data[other] = data[other], data[one]
    file.write_bytes(data)
    with edited(file) as db:
        assert len(db.execute("SELECT * FROM meta").fetchall()) == 3
    with pytest.raises(StateTamperedError):
        open_store("sqlite:state.db", file.parent, KEY)


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM ledger",
        "UPDATE ledger SET value = x'80'",
        "UPDATE ledger SET value = 'text'",
        "UPDATE ledger SET mac = 'text'",
        "UPDATE ledger SET mac = zeroblob(32)",
        "UPDATE ledger SET value = 7, mac = 7",
        "UPDATE ledger SET id = 2",
        "INSERT INTO ledger SELECT 2, value, mac FROM ledger",
        "INSERT INTO ledger VALUES (0, x'80', x'80')",
        "DROP TABLE ledger",
        "DROP TABLE seen",
        "ALTER TABLE seen RENAME TO seen2",
        "ALTER TABLE seen ADD COLUMN more",
        "ALTER TABLE seen RENAME COLUMN mac TO mac2",
        "DROP INDEX peers_kid",
        "CREATE INDEX more ON seen (revision)",
        "CREATE TABLE more (x)",
        "CREATE VIEW more AS SELECT 1",
        "CREATE TRIGGER more BEFORE INSERT ON seen BEGIN SELECT RAISE(IGNORE); END",
        "ANALYZE",
    ],
)
def test_ledger_and_schema(file: Path, edit: str) -> None:
    with edited(file) as db:
        db.execute(edit)
    try:
        read_all(file)
    except StateTamperedError:
        return
    assert edit == "UPDATE ledger SET id = 2"  # the number of the only row means nothing


def test_an_older_ledger_with_its_rows_missing(template: Path, file: Path) -> None:
    with edited(template / "old") as db:
        old = db.execute("SELECT value, mac FROM ledger").fetchone()
    with edited(file) as db:
        db.execute("UPDATE ledger SET value = ?, mac = ?", old)
    must_be_noticed(file)


def test_a_table_replaced_by_a_view(file: Path) -> None:
    with edited(file) as db:
        db.execute("ALTER TABLE seen RENAME TO hidden")
        db.execute("CREATE VIEW seen AS SELECT * FROM hidden")
    must_be_noticed(file)


def test_every_length(template: Path, file: Path) -> None:
    data = (template / "new").read_bytes()
    expected = read_all(file)
    for length in sorted({*range(200), *range(0, len(data), 397), len(data) - 1}):
        file.write_bytes(data[:length])
        try:
            assert read_all(file) == expected, length
        except StateError:
            continue
        assert length > len(data) - 4096  # the last page, where nothing was


def test_garbage(file: Path) -> None:
    rng = random.Random(1)
    for data in (bytes(4096), rng.randbytes(50_000), b"SQLite format 3\0" + rng.randbytes(9000)):
        file.write_bytes(data)
        must_be_noticed(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(StateError):
        read_all(file)


def test_garbage_beside_it(file: Path) -> None:
    """Logs that SQLite would replay: they are no part of what the device wrote."""
    rng = random.Random(2)
    expected = read_all(file)
    for suffix in ("-wal", "-journal", "-shm"):
        beside = Path(f"{file}{suffix}")
        beside.write_bytes(rng.randbytes(9000))
        assert read_all(file) == expected
        beside.unlink(missing_ok=True)


def test_flipped_bits_anywhere(template: Path, file: Path) -> None:
    """Either they hit what nobody reads, or they are noticed; nothing else ever comes out."""
    data = bytearray((template / "new").read_bytes())
    expected = read_all(file)
    rng = random.Random(3)
    noticed = 0
    for _ in range(1500):
        at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        data[at] ^= bit
        file.write_bytes(data)
        try:
            assert read_all(file) == expected
        except StateError:
            noticed += 1
        data[at] ^= bit
    assert noticed > 500


def test_the_wal_taken_away(template: Path, tmp_path: Path) -> None:
    """Commits that are only in the log so far: without it the store is an older one, and
    consistent. Only the anchor can tell."""
    shutil.copy2(template / "new", tmp_path / "state.db")
    store = open_store("sqlite:state.db", tmp_path, KEY)
    with store.transaction():
        store.put(SEEN, Row(b"new", b"1"))
    shutil.copytree(tmp_path, tmp_path / "killed")
    store.close()
    (tmp_path / "killed" / "state.db-wal").unlink()
    again = open_store("sqlite:state.db", tmp_path / "killed", KEY)
    assert again.get(SEEN, b"new") is None
    assert again.get(META, b"alpha" * 6) is not None
    again.close()
