"""The same keys in use elsewhere: noticed by whom, and what must not look like it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from devices import Pair, copy, events, make
from pqc_iiot import Node, PqcIiotError, StateError, cose, presence
from pqc_iiot.bundle import MAX_SERIAL
from pqc_iiot.errors import (
    AuthenticationError,
    ClonedIdentityError,
    InvalidFrameError,
    StateTamperedError,
)
from pqc_iiot.presence import (
    KEPT,
    MAX_PRESENCE_SIZE,
    PRESENCE_FILE,
    last_shown,
    parse_presence,
)
from pqc_iiot.providers import KeySet
from pqc_iiot.suites import SUITES


@pytest.fixture
def folder(devices: Path, tmp_path: Path) -> Path:
    """A device that has shown its presence, closed."""
    copy(devices, tmp_path, "plc")
    with Node.open(tmp_path / "plc") as node:
        node.presence.record()
    return tmp_path / "plc"


@pytest.fixture
def both(folder: Path, tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """The device and its clone, both alive."""
    shutil.copytree(folder, tmp_path / "clone")
    with Node.open(folder) as original, Node.open(tmp_path / "clone") as clone:
        yield original, clone


def alarms(node: Node) -> list[dict[str, object]]:
    return [dict(e.detail) for e in events(node) if e.event == "refused_cloned_identity"]


def quiet(node: Node, record: bytes) -> None:
    """It is looked at, and nothing comes of it."""
    before = len(events(node))
    with suppress(InvalidFrameError, AuthenticationError):
        node.presence.take(record)
    assert len(events(node)) == before
    assert not node.status().cloned


# Noticed


def test_a_clone_and_its_original_notice_each_other(both: tuple[Node, Node]) -> None:
    for one, other in (both, both[::-1]):
        with pytest.raises(ClonedIdentityError) as caught:
            one.presence.take(other.presence.record(), transport="mqtt")
        assert "id rotate" in caught.value.hint
        (alarm,) = alarms(one)
        assert alarm["transport"] == "mqtt"
        assert alarm["instance"] == other.presence._instance.hex()
        assert one.status().cloned


def test_an_original_notices_a_clone_of_long_ago(folder: Path, tmp_path: Path) -> None:
    """Which has been opened less often, and has given out fewer numbers."""
    shutil.copytree(folder, tmp_path / "clone")
    for _ in range(3):
        with Node.open(folder) as original:
            original.seal(b"", to="sensor")
            original.presence.record()
    with Node.open(folder) as original, Node.open(tmp_path / "clone") as clone:
        assert clone.status().epoch < original.status().epoch
        with pytest.raises(ClonedIdentityError):
            original.presence.take(clone.presence.record())


def test_a_folder_that_was_put_back_learns_that_it_is_old(folder: Path, tmp_path: Path) -> None:
    """In place, file by file, so that nothing in it looks different."""
    shutil.copytree(folder, tmp_path / "backup")
    with Node.open(folder) as node:
        newer = node.presence.record()
    shutil.copytree(tmp_path / "backup", folder, dirs_exist_ok=True)
    with Node.open(folder) as node:
        copied = [event for event in events(node) if event.event == "state_copied"]
        assert len(copied) == 1  # when the template was copied, not now
        with pytest.raises(ClonedIdentityError):
            node.presence.take(newer)


def test_a_machine_that_was_cloned_while_it_ran(both: tuple[Node, Node]) -> None:
    """Then both are the same opening: numbers that this one has not reserved tell."""
    original, clone = both
    clone.presence._instance = original.presence._instance
    original.presence.record()
    quiet(original, clone.presence.record())
    clone.seal(b"", to="sensor")
    with pytest.raises(ClonedIdentityError):
        original.presence.take(clone.presence.record())


def test_nothing_that_was_shown_last_is_outdone(folder: Path) -> None:
    """By the same opening: neither in how often it was opened nor in its numbers."""
    with Node.open(folder) as node:
        node.presence.record()
        own, last = node._usable_state().identity.current, last_shown(folder, node.bundle)
        assert last is not None
        for epoch, edge, known in ((0, 0, True), (1, 0, False), (0, 1, False), (-1, 0, True)):
            data = presence._sign(own, last.epoch + epoch, last.edge + edge, last.openings)
            assert last.covers(parse_presence(data, node.bundle)) is known


def test_a_clone_older_than_the_first_record(devices: Path, tmp_path: Path) -> None:
    """While all openings that have shown one are named, any other is somebody else's."""
    copy(devices, tmp_path, "plc")
    shutil.copytree(tmp_path / "plc", tmp_path / "clone")
    for _ in range(3):
        Node.open(tmp_path / "plc").close()
    with Node.open(tmp_path / "plc") as original, Node.open(tmp_path / "clone") as clone:
        original.presence.record()
        record = clone.presence.record()
        with pytest.raises(ClonedIdentityError):
            original.presence.take(record)


def test_a_folder_that_never_showed_any(devices: Path, tmp_path: Path) -> None:
    copy(devices, tmp_path, "plc")
    shutil.copytree(tmp_path / "plc", tmp_path / "clone")
    with Node.open(tmp_path / "plc") as original, Node.open(tmp_path / "clone") as clone:
        record = clone.presence.record()
        with pytest.raises(ClonedIdentityError):
            original.presence.take(record)


def test_it_is_told_once_for_each_opening(both: tuple[Node, Node]) -> None:
    original, clone = both
    path, records = original._usable_state().folder.path, [clone.presence.record()]
    clone.presence._instance = bytes(16)
    records.append(clone.presence.record())
    for _ in range(3):
        for record in records:
            with suppress(ClonedIdentityError):
                original.presence.take(record)
    assert len(alarms(original)) == 2
    original.close()
    with Node.open(path) as again:
        again.presence.take(records[-1])
        assert len(alarms(again)) == 2
        assert again.status().cloned


def test_memory_and_log_are_bounded_whatever_a_clone_shows(
    both: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_MAX_TOLD", 3)
    original, clone = both
    for number in range(6):
        clone.presence._instance = bytes((number,)) * 16
        with suppress(ClonedIdentityError):
            original.presence.take(clone.presence.record())
    assert len(original.presence._told) == len(alarms(original)) == 3


def test_new_keys_end_it(both: tuple[Node, Node]) -> None:
    original, clone = both
    record = clone.presence.record()
    with pytest.raises(ClonedIdentityError):
        original.presence.take(record)
    original.rotate()
    quiet(original, record)
    quiet(original, original.presence.record())


# No false alarms


def test_what_a_folder_has_shown_is_its_own_in_any_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker may show any of it again, also what is too old to be named."""
    monkeypatch.setattr(presence, "KEPT", 3)
    shown = []
    for number in range(7):
        with Node.open(folder) as node:
            shown.append(node.presence.record())
            if number % 2:
                node.seal(b"", to="sensor")
                shown.append(node.presence.record())
            for record in shown:
                quiet(node, record)
            own = last_shown(folder, node.bundle)
            assert own is not None
            assert len(own.openings) <= 3
    with Node.open(folder) as node:  # and one that has shown nothing yet
        for record in shown:
            quiet(node, record)


def test_a_disk_that_moved_is_no_clone(folder: Path, tmp_path: Path) -> None:
    with Node.open(folder) as node:
        before = node.presence.record()
    shutil.copytree(folder, tmp_path / "new")
    shutil.rmtree(folder)
    with Node.open(tmp_path / "new") as node:
        assert node.status().copied
        quiet(node, before)
        quiet(node, node.presence.record())


def test_nobody_else_can_raise_it(both: tuple[Node, Node], tmp_path: Path) -> None:
    """Records of others, also under the same name; signatures of ours over something else."""
    original, clone = both
    genuine = clone.presence.record()
    (tmp_path / "other").mkdir(0o700)
    with make(tmp_path / "other", "plc") as impostor:
        quiet(original, impostor.presence.record())
        # Another's signature over what this device would say.
        other, own = impostor._usable_state().identity.current, original.bundle
        payload = cose.dumps([own.fingerprint, 99, 1 << 40, [[99, bytes(16)]]])
        for bundle in (own, impostor.bundle):
            protected = presence._protected(bundle)
            signature = other.keys.sign(presence._to_be_signed(protected, payload))
            forged = cose.TAG_SIGN1 + cose.dumps([protected, {}, payload, signature])
            quiet(original, forged)
    # This device's own signature over another statement, or over the same without the domain.
    keys = original._usable_state().identity.current.keys
    protected = presence._protected(own)
    for signed in (
        cose.dumps(["Signature1", protected, b"", payload]),
        cose.dumps(["Signature1", b"", presence._DOMAIN, payload]),
        cose.dumps(["Signature", b"", protected, presence._DOMAIN, payload]),
        payload,
    ):
        forged = cose.TAG_SIGN1 + cose.dumps([protected, {}, payload, keys.sign(signed)])
        with pytest.raises(AuthenticationError):
            original.presence.take(forged)
        quiet(original, forged)
    for junk in (b"", b"junk", own.encoded, original.seal(b"", to="sensor"), bytes(1 << 16)):
        with pytest.raises(InvalidFrameError):
            original.presence.take(junk)
        quiet(original, junk)
    with pytest.raises(ClonedIdentityError):  # and then the real one
        original.presence.take(genuine)


def test_every_byte_matters(both: tuple[Node, Node]) -> None:
    original, clone = both
    genuine = clone.presence.record()
    for at in range(len(genuine)):
        bent = bytearray(genuine)
        bent[at] ^= 1 << at % 8
        with pytest.raises((InvalidFrameError, AuthenticationError)):
            parse_presence(bytes(bent), original.bundle)
    for end in range(0, len(genuine), 7):
        with pytest.raises(InvalidFrameError):
            parse_presence(genuine[:end], original.bundle)
    assert parse_presence(genuine, original.bundle).instance == clone.presence._instance


@pytest.mark.parametrize(
    "content",
    [
        [b"", 1, 2, [[1, bytes(16)]]],
        ["own", -1, 2, [[1, bytes(16)]]],
        ["own", 1, 1 << 64, [[1, bytes(16)]]],
        ["own", 1, 2, []],
        ["own", 1, 2, [[1, bytes(16)]] * (KEPT + 1)],
        ["own", 1, 2, [[1, bytes(15)]]],
        ["own", 1, 2, [[-1, bytes(16)]]],
        ["own", 1, 2, [[1, bytes(16), 3]]],
        ["own", 1, 2],
        ["own", "1", 2, [[1, bytes(16)]]],
    ],
)
def test_other_shapes_are_refused_before_the_signature(content: list[object], pair: Pair) -> None:
    own = pair.plc._usable_state().identity.current
    payload = cose.dumps([own.bundle.fingerprint if c == "own" else c for c in content])
    protected = presence._protected(own.bundle)
    signature = own.keys.sign(presence._to_be_signed(protected, payload))
    with pytest.raises(InvalidFrameError):
        parse_presence(cose.TAG_SIGN1 + cose.dumps([protected, {}, payload, signature]), own.bundle)


# What is kept


def test_it_is_on_disk_before_anybody_sees_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Node.open(folder) as node:
        record = node.presence.record()
        last = last_shown(folder, node.bundle)
        assert last is not None
        assert last.encoded == record
        node.seal(b"", to="sensor")
        state = node._usable_state()

        def fail(name: str, data: bytes) -> None:
            raise StateError("full")

        monkeypatch.setattr(state.folder, "write", fail)
        with pytest.raises(StateError):
            node.presence.record()
        monkeypatch.undo()


def test_it_is_signed_once_while_nothing_moves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Node.open(folder) as node:
        signed: list[bytes] = []
        keys = type(node._usable_state().identity.current.keys)
        sign = keys.sign

        def note(self: KeySet, message: bytes) -> bytes:
            signed.append(message)
            return sign(self, message)

        monkeypatch.setattr(keys, "sign", note)
        first = node.presence.record()
        assert node.presence.record() == first
        assert len([message for message in signed if presence._DOMAIN in message]) == 1


def test_a_damaged_file_is_told(folder: Path) -> None:
    with Node.open(folder) as node:
        data = node.presence.record()
        file = folder / PRESENCE_FILE
        file.write_bytes(file.read_bytes()[:-1])
        for action in (node.presence.record, lambda: node.presence.take(data)):
            with pytest.raises(StateTamperedError):
                action()
        node.rotate()  # what the hint says
        quiet(node, node.presence.record())


def test_a_file_that_is_gone_is_no_fresh_start(folder: Path) -> None:
    """It raises the alarm, rather than silence it."""
    with Node.open(folder) as node:
        record = node.presence.record()
        (folder / PRESENCE_FILE).unlink()
        with pytest.raises(ClonedIdentityError):
            node.presence.take(record)


@pytest.mark.parametrize("suite", SUITES)
def test_the_largest_record_fits(suite: int, tmp_path: Path) -> None:
    with make(tmp_path, "plc", suite) as node:
        own = node._usable_state().identity.current
        openings = tuple((MAX_SERIAL << 31, bytes(16)) for _ in range(KEPT))
        record = presence._sign(own, 1 << 63, 1 << 62, openings)
        assert len(record) < MAX_PRESENCE_SIZE - 1024
        assert parse_presence(record, node.bundle).edge == 1 << 62


def test_a_closed_node_shows_nothing(pair: Pair) -> None:
    record = pair.plc.presence.record()
    pair.plc.close()
    for action in (pair.plc.presence.record, lambda: pair.plc.presence.take(record)):
        with pytest.raises(PqcIiotError, match="closed"):
            action()
