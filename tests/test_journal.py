"""The journal beside the store: what a crash may leave, and what only somebody can have done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pqc_iiot import StateError
from pqc_iiot._core import Secret
from pqc_iiot.errors import StateTamperedError
from pqc_iiot.store import PEERS, Row, Store, open_store
from pqc_iiot.store.journal import Journal, segments


class Place:
    """A store and the journal beside it, opened again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = Secret.random()
        open_store("sqlite:state.db", folder, self.key, create=True).close()
        self.store: Store
        self.journal: Journal

    def open(self) -> list[bytes]:
        """Opens both: the records."""
        self.store = open_store("sqlite:state.db", self.folder, self.key)
        self.journal = Journal(self.folder, self.key, self.store)
        try:
            return list(self.journal.replay())
        except BaseException:
            self.store.close()
            raise

    def crash(self) -> None:
        """An end without an end."""
        self.journal.abandon()
        self.store.close()

    def close(self, *, empty: bool = False) -> None:
        """A clean end."""
        self.journal.close(lambda: None, empty=empty)
        self.store.close()

    def files(self) -> list[Path]:
        """The segments."""
        return segments(self.folder)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    assert place.open() == []
    yield place
    place.crash()


ENDS: list[Callable[[Place], None]] = [Place.crash, Place.close]


@pytest.mark.parametrize("end", ENDS)
def test_what_was_appended_is_there_in_order(place: Place, end: Callable[[Place], None]) -> None:
    expected = []
    for life in range(4):
        for number in range(life):  # the first life appends nothing
            place.journal.append(b"%d %d" % (life, number))
            expected.append(b"%d %d" % (life, number))
        end(place)
        assert place.open() == expected
    assert len(place.files()) == 3


def test_nothing_is_readable_on_disk(place: Place) -> None:
    place.journal.append(b"a payload in clear")
    (file,) = place.files()
    assert b"payload" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_append_is_one_write_and_one_fsync(place: Place) -> None:
    place.journal.append(b"first")
    before, store = place.journal.stats(), place.store.stats()
    place.journal.append(b"x" * 100)
    after = place.journal.stats()
    assert (after.commits - before.commits, after.fsyncs - before.fsyncs) == (1, 1)
    assert after.written - before.written == 100 + 8 + 12 + 16
    assert place.store.stats() == store
    assert sum(file.stat().st_size for file in place.files()) == after.written


@pytest.mark.parametrize("end", ENDS)
def test_a_snapshot_replaces_what_was_before(place: Place, end: Callable[[Place], None]) -> None:
    place.journal.append(b"old")
    row = Row(b"k", b"v")
    place.journal.checkpoint(lambda: place.store.put(PEERS, row), b"snapshot")
    place.journal.append(b"new")
    end(place)
    assert place.open() == [b"snapshot", b"new"]
    assert place.store.get(PEERS, b"k") == row
    assert len(place.files()) == 1


def test_a_checkpoint_without_a_snapshot_keeps_all(place: Place) -> None:
    place.journal.append(b"old")
    place.journal.checkpoint(lambda: None, None)
    place.journal.append(b"new")
    place.crash()
    assert place.open() == [b"old", b"", b"new"]


def test_an_empty_end_leaves_no_file(place: Place) -> None:
    place.journal.append(b"old")
    place.close(empty=True)
    assert place.files() == []
    assert place.open() == []
    place.journal.append(b"new")
    place.crash()
    assert place.open() == [b"new"]


def test_a_torn_record_was_never_there(place: Place) -> None:
    place.journal.append(b"one")
    (file,) = place.files()
    whole = len(file.read_bytes())
    place.journal.append(b"two")
    place.crash()
    data = file.read_bytes()
    for cut in range(whole, len(data)):
        file.write_bytes(data[:cut])
        assert place.open() == [b"one"]
        place.crash()
        zeros = bytes(len(data) - cut)  # its length was on disk before its content
        file.write_bytes(data[:cut] + zeros)
        assert place.open() == [b"one"]
        place.crash()
    file.write_bytes(data[: whole + 9])
    place.open()
    place.journal.append(b"three")
    place.crash()
    assert place.open() == [b"one", b"three"]


def test_a_failed_write_is_forgotten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its bytes are whole, because only the fsync has failed."""
    place.journal.append(b"one")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StateError):
            place.journal.append(b"lost")
        with pytest.raises(StateError):
            place.journal.append(b"lost, too")
    place.journal.append(b"two")
    place.crash()
    assert place.open() == [b"one", b"two"]


def test_a_store_that_fails_takes_the_segment_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise StateError("full")

    with pytest.raises(StateError):
        place.journal.checkpoint(fail, b"never")
    place.journal.append(b"one")
    with pytest.raises(StateError):
        place.journal.checkpoint(fail, b"never")
    place.journal.append(b"two")
    place.close()
    assert place.open() == [b"one", b"two"]


def lives(place: Place) -> list[Path]:
    """Three segments of two records each, and a clean end."""
    for life in range(3):
        for number in range(2):
            place.journal.append(b"%d %d" % (life, number))
        place.crash() if life < 2 else place.close()
        if life < 2:
            place.open()
    return place.files()


def refused(place: Place) -> None:
    with pytest.raises(StateTamperedError):
        place.open()


@pytest.mark.parametrize("at", range(3))
def test_a_missing_segment_is_noticed(place: Place, at: int) -> None:
    lives(place)[at].unlink()
    refused(place)


def test_every_flipped_bit_is_noticed(place: Place) -> None:
    for file in lives(place):
        data = file.read_bytes()
        for at in range(len(data)):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            refused(place)
        file.write_bytes(data)
    assert len(place.open()) == 6


@pytest.mark.parametrize("at", range(3))
def test_every_cut_is_noticed(place: Place, at: int) -> None:
    file = lives(place)[at]
    data = file.read_bytes()
    for length in range(len(data)):
        file.write_bytes(data[:length])
        refused(place)


def test_segments_do_not_change_places(place: Place) -> None:
    files = lives(place)
    one, two = files[0].read_bytes(), files[1].read_bytes()
    files[0].write_bytes(two)
    files[1].write_bytes(one)
    refused(place)


def test_a_segment_of_another_time_does_not_fit(place: Place) -> None:
    """One that was removed comes back under the number that is next."""
    place.journal.append(b"old")
    (file,) = place.files()
    old = file.read_bytes()
    place.journal.checkpoint(lambda: None, b"snapshot")
    place.close()
    file.with_name("journal-0000000003").write_bytes(old)
    assert place.open() == [b"snapshot"]  # no segment at all: another number is in it
    place.crash()
    file.with_name("journal-0000000001").write_bytes(old)
    assert place.open() == [b"snapshot"]
    assert len(place.files()) == 2


def test_damage_in_the_middle_is_no_crash(place: Place) -> None:
    for number in range(3):
        place.journal.append(b"%d" % number)
    place.crash()
    (file,) = place.files()
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    refused(place)


def test_what_a_crash_left_of_a_first_segment_goes(place: Place) -> None:
    place.crash()
    file = place.folder / "journal-0000000001"
    file.write_bytes(b"PQJ1")
    assert place.open() == []
    assert not file.exists()


def test_what_a_crash_left_of_a_next_segment_is_replaced(place: Place) -> None:
    place.journal.append(b"one")
    place.crash()
    (place.folder / "journal-0000000002").write_bytes(b"PQJ1")
    assert place.open() == [b"one"]
    place.journal.append(b"two")
    place.crash()
    assert place.open() == [b"one", b"two"]


def test_another_key_opens_nothing(place: Place) -> None:
    place.journal.append(b"one")
    journal = Journal(place.folder, Secret.random(), place.store)
    with pytest.raises(StateTamperedError):
        list(journal.replay())
