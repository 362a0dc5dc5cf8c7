"""Numbers: never given out twice, never accepted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqc_iiot import DuplicateError, ReplayError, StateError
from pqc_iiot._core import Secret
from pqc_iiot.anchor import Anchor
from pqc_iiot.cose import dumps
from pqc_iiot.errors import StateRollbackError, StateTamperedError
from pqc_iiot.folder import StateFolder
from pqc_iiot.freshness import MAX_SEQUENCE, RECENT, Freshness, frame_digest
from pqc_iiot.store import META, SEEN, Row, Store, open_store

KEY = Secret.random()
A, B = b"a" * 32, b"b" * 32


def new_store() -> Store:
    store = open_store("memory:", Path(), KEY, create=True)
    Freshness.initialise(store, None)
    return store


@pytest.fixture
def store() -> Store:
    return new_store()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    folder = StateFolder(tmp_path / "state", create=True)
    yield folder
    folder.close()


def digest(number: int) -> bytes:
    return frame_digest(b"frame %d" % number, b"")


def accept(freshness: Freshness, sender: bytes, number: int) -> None:
    freshness.check(sender, number, digest(number))
    freshness.stage(sender, number, digest(number))
    freshness.commit()


# Out


@given(blocks=st.lists(st.integers(1, 9), min_size=1, max_size=6), data=st.data())
def test_no_number_twice_whatever_the_blocks_and_restarts(
    blocks: list[int], data: st.DataObject
) -> None:
    store, given_out = new_store(), []
    for block in blocks:
        freshness = Freshness(store, None, block=block)
        given_out += [freshness.next_number() for _ in range(data.draw(st.integers(0, 12)))]
        if data.draw(st.booleans()):  # else it ends like a crash
            freshness.close()
    assert given_out == sorted(set(given_out))
    assert all(1 <= number <= MAX_SEQUENCE for number in given_out)


def test_the_edge_is_durable_before_the_first_number(folder: StateFolder) -> None:
    store, anchor = new_store(), Anchor(folder, KEY)
    Freshness.initialise(store, anchor)
    freshness = Freshness(store, anchor, block=4)
    for number in range(1, 10):
        assert freshness.next_number() == number
        assert freshness.mark.edge >= number
        anchor.check(freshness.mark)
        with pytest.raises(StateRollbackError):
            anchor.check(type(freshness.mark)(freshness.mark.epoch, number - 1))


def test_without_a_durable_edge_there_is_no_number(
    store: Store, folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = Anchor(folder, KEY)
    Freshness.initialise(store, anchor)
    freshness = Freshness(store, anchor, block=2)

    def fail(*_: object) -> None:
        raise StateError("the disk is full")

    for target, name in ((store, "put"), (anchor, "write")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, fail)
            with pytest.raises(StateError):
                freshness.next_number()
    assert [freshness.next_number() for _ in range(3)] == [1, 2, 3]


def test_the_last_number(store: Store) -> None:
    with store.transaction():
        store.put(META, Row(b"mark", dumps([0, MAX_SEQUENCE - 5])))
    freshness = Freshness(store, None, block=5)
    assert [freshness.next_number() for _ in range(5)][-1] == MAX_SEQUENCE == (1 << 62) - 1
    with pytest.raises(StateError, match="used up"):
        freshness.next_number()


# Opening


def test_a_missing_mark_is_not_a_fresh_one(store: Store) -> None:
    with store.transaction():
        store.delete(META, b"mark")
    with pytest.raises(StateError, match="missing") as caught:
        Freshness(store, None)
    assert "pqc-iiot recover" in caught.value.hint


@pytest.mark.parametrize("value", [[], [1], [1, 2, 3], ["1", 2], b"", {}], ids=repr)
def test_a_mark_of_another_shape(store: Store, value: object) -> None:
    with store.transaction():
        store.put(META, Row(b"mark", dumps(value)))
    with pytest.raises(StateError):
        Freshness(store, None)


def test_each_opening_and_each_end_makes_older_copies_too_old(folder: StateFolder) -> None:
    store, anchor = new_store(), Anchor(folder, KEY)
    Freshness.initialise(store, anchor)
    marks = []
    for _ in range(3):
        freshness = Freshness(store, anchor)
        marks.append(freshness.mark)
        freshness.close()
        marks.append(freshness.mark)
    assert [mark.epoch for mark in marks] == [1, 2, 3, 4, 5, 6]
    for mark in marks[:-1]:
        with pytest.raises(StateRollbackError):
            anchor.check(mark)


# In


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 60)), max_size=60), st.data())
@settings(max_examples=60)
def test_each_number_is_accepted_once_and_only_upwards(
    arrivals: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    store = new_store()
    freshness = Freshness(store, None)
    last, accepted = {A: 0, B: 0}, set()
    for sender, number in arrivals:
        if data.draw(st.integers(0, 9)) == 0:
            freshness = Freshness(store, None)
        if number > last[sender]:
            accept(freshness, sender, number)
            last[sender] = number
            accepted.add((sender, number))
            continue
        before = list(store.rows(SEEN))
        expected = DuplicateError if (sender, number) in accepted else ReplayError
        with pytest.raises(ReplayError) as caught:
            freshness.check(sender, number, digest(number))
        assert type(caught.value) is expected or len(accepted) > RECENT
        assert caught.value.peer == sender.hex()
        assert list(store.rows(SEEN)) == before


def test_what_is_remembered_is_bounded(store: Store) -> None:
    freshness = Freshness(store, None)
    for number in range(1, 100):
        accept(freshness, A, number)
    for again, first in ((freshness, 1), (Freshness(store, None), 100 - RECENT)):
        for number in range(1, 100):
            assert told(again, A, number, digest(number)) == (number >= first)
            assert not told(again, A, number, digest(0))
    (row,) = store.rows(SEEN)
    assert len(row.value) < 600


def told(freshness: Freshness, sender: bytes, number: int, of: bytes) -> bool:
    """Whether it is known to be the identical frame; refused it is in any case."""
    with pytest.raises(ReplayError) as caught:
        freshness.check(sender, number, of)
    return type(caught.value) is DuplicateError


def test_what_is_remembered_in_memory_is_bounded_for_all_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.freshness.LATELY", 100)
    freshness = Freshness(store, None)
    for number in range(1, 1000):
        accept(freshness, A if number % 2 else B, number)
    senders = {number: A if number % 2 else B for number in range(1, 1000)}
    known = [n for n, sender in senders.items() if told(freshness, sender, n, digest(n))]
    assert known == list(range(known[0], 1000))
    assert 100 <= len(known) <= 200
    # The other's frame with this number is another one.
    assert not told(freshness, B, 999 - 100, digest(999 - 100))


@pytest.mark.parametrize("journal", [False, True])
def test_what_was_taken_back_is_not_remembered(store: Store, journal: bool) -> None:
    freshness = Freshness(store, None)
    for number in range(1, 51):
        freshness.stage(A, number, digest(number))
    freshness.forget_staged()
    for number in range(51, 101):
        freshness.stage(A, number, digest(number))
    if journal:
        freshness.settle()
    else:
        freshness.commit()
    for number in range(1, 101):
        assert told(freshness, A, number, digest(number)) == (number > 50)


def test_what_the_journal_says_is_remembered(store: Store) -> None:
    freshness = Freshness(store, None)
    for number in range(1, 100):
        freshness.replay(A, number, digest(number))
    for number in range(1, 100):
        assert told(freshness, A, number, digest(number))
        assert not told(freshness, A, number, digest(0))


def test_numbers_are_remembered_of_bounded_many(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.freshness._CACHE", 4)
    freshness = Freshness(store, None)
    senders = [bytes([i]) * 32 for i in range(20)]
    for sender in senders:
        accept(freshness, sender, 7)
        assert len(freshness._seen) <= 4
    for sender in senders:
        assert freshness.seen(sender) == (7, 7)
        with pytest.raises(DuplicateError):
            freshness.check(sender, 7, digest(7))
    # What is staged stays in memory until it is durable.
    for sender in senders:
        freshness.stage(sender, 8, digest(8))
    freshness.commit()
    freshness.seen(A)
    assert len(freshness._seen) <= 4
    assert {Freshness(store, None).seen(sender) for sender in senders} == {(7, 8)}


def test_a_failed_commit_has_accepted_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    freshness = Freshness(store, None)
    accept(freshness, A, 1)
    freshness.stage(A, 2, digest(2))
    freshness.stage(B, 2, digest(2))

    def fail(*_: object) -> None:
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", fail)
        with pytest.raises(StateError):
            freshness.commit()
    for sender in (A, B):
        freshness.check(sender, 2, digest(2))  # as before
    freshness.commit()
    assert [row.key for row in store.rows(SEEN)] == [A]
    accept(freshness, A, 2)
    with pytest.raises(DuplicateError):
        freshness.check(A, 2, digest(2))


@pytest.mark.parametrize(
    "value", [[], [1, 2], [1, 2, b"x"], [1, 2, b"x" * 17], ["1", 2, b""], 7, {}], ids=repr
)
def test_a_row_of_another_shape(store: Store, value: object) -> None:
    with store.transaction():
        store.put(SEEN, Row(A, dumps(value)))
    with pytest.raises(StateTamperedError):
        Freshness(store, None).check(A, 1, digest(1))


def test_the_digest_tells_contexts_and_frames_apart() -> None:
    digests = {
        frame_digest(frame, context)
        for frame, context in ((b"f", b"\x41a"), (b"f", b"\x41b"), (b"g", b"\x41a"), (b"", b""))
    }
    assert len(digests) == 4
    assert {len(digest) for digest in digests} == {8}


@pytest.mark.parametrize("end", [lambda f: f.close(), lambda f: f.commit()])
def test_what_is_staged_is_written_at_the_end(
    store: Store, end: Callable[[Freshness], None]
) -> None:
    freshness = Freshness(store, None)
    freshness.stage(A, 5, digest(5))
    end(freshness)
    assert Freshness(store, None).seen(A) == (5, 5)


def test_whoever_spoke_last_stays_in_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pqc_iiot.freshness._CACHE", 2)
    freshness = Freshness(store, None)
    c = b"c" * 32
    for sender in (A, B):
        accept(freshness, sender, 5)
    freshness.check(A, 6, digest(6))
    accept(freshness, c, 5)
    assert list(freshness._seen) == [A, c]
