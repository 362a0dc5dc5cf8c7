"""The whole state folder in trouble: every damage is refused by name, and can be recovered."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from devices import PLAINTEXT, Pair, edited, events, make, seen_rows
from pqc_iiot import (
    DuplicateError,
    Incoming,
    Message,
    Node,
    Policy,
    PqcIiotError,
    ProviderError,
    StateError,
    UnknownPeerError,
)
from pqc_iiot.errors import (
    StateRollbackError,
    StateTamperedError,
    WrongPassphraseError,
    WrongRecipientError,
)
from pqc_iiot.providers.passphrase import from_file


def backup(pair: Pair) -> Path:
    """A copy of the controller's folder, made while it is closed."""
    pair.close()
    shutil.copytree(pair.folder / "plc", pair.folder / "backup")
    pair.sensor = Node.open(pair.folder / "sensor")
    pair.plc = Node.open(pair.folder / "plc")
    return pair.folder / "backup"


def put_back(folder: Path, backup: Path, *names: str) -> None:
    for name in names:
        shutil.copy2(backup / name, folder / name)


def recover_and_use(pair: Pair, old_frame: bytes) -> None:
    """The device comes back with new keys, to which nothing old means anything."""
    before = pair.plc.bundle
    pair.plc = Node.recover(pair.folder / "plc")
    after = pair.plc.bundle
    assert (after.name, after.serial, after.previous) == ("plc", 2, before.fingerprint)
    assert pair.plc.peers.counts() == (0, 0)
    assert seen_rows(pair.plc) == []
    with pytest.raises(WrongRecipientError):
        pair.plc.open(old_frame, context="line1/temp")
    if pair.sensor._state is None:
        pair.sensor = Node.open(pair.folder / "sensor")
    pair.sensor.peers.add(after.encoded)
    with pytest.raises(UnknownPeerError):
        pair.plc.open(pair.frame(), context="line1/temp")
    pair.plc.peers.add_approved(pair.sensor.bundle)
    assert pair.plc.open(pair.frame(), context="line1/temp").payload == b"21.5"
    pair.plc.close()
    pair.plc = Node.open(pair.folder / "plc")
    assert pair.plc.open(pair.frame(), context="line1/temp").payload == b"21.5"
    assert any(event.event == "state_recovered" for event in events(pair.plc))


def delete(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def replace(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def sql(statement: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        with edited(folder / "state.db") as db:
            db.execute(statement)

    return edit


@pytest.mark.parametrize(
    ("harm", "error", "event"),
    [
        (delete("state.db"), StateError, "state_missing"),
        (delete("anchor"), StateError, "state_missing"),
        (replace("state.db", b""), StateTamperedError, "state_tampered"),
        (replace("state.db", bytes(8192)), StateTamperedError, "state_tampered"),
        (replace("anchor", b""), StateTamperedError, "state_tampered"),
        (replace("anchor", bytes(1000)), StateError, "state_missing"),
        (replace("anchor", b"junk" * 10), StateTamperedError, "state_tampered"),
        (sql("DELETE FROM seen"), StateTamperedError, "state_tampered"),
        (sql("UPDATE seen SET revision = 1"), StateTamperedError, "state_tampered"),
        (sql("DELETE FROM peers"), StateTamperedError, "state_tampered"),
        (sql("DELETE FROM meta WHERE key = x'6d61726b'"), StateTamperedError, "state_tampered"),
        (sql("UPDATE meta SET value = x'820000'"), StateTamperedError, "state_tampered"),
        (sql("DROP TABLE seen"), StateTamperedError, "state_tampered"),
    ],
)
def test_damage_is_refused_by_name_and_recovered(
    pair: Pair, harm: Callable[[Path], object], error: type[StateError], event: str
) -> None:
    frame = pair.frame()
    pair.plc.open(frame, context="line1/temp")
    pair.plc.close()
    harm(pair.folder / "plc")
    for _ in range(2):
        with pytest.raises(error) as caught:
            Node.open(pair.folder / "plc")
        assert type(caught.value) is error
        assert "pqc-iiot recover" in caught.value.hint
        assert caught.value.exit_code == 4
    recover_and_use(pair, frame)
    assert [record.event for record in events(pair.plc)].count(event) == 2


@pytest.mark.parametrize(
    "harm", [delete("identity"), replace("identity", b""), replace("identity", b"junk" * 99)]
)
def test_without_keys_there_is_no_device(pair: Pair, harm: Callable[[Path], object]) -> None:
    folder = pair.folder / "plc"
    kept = (folder / "identity").read_bytes()
    pair.plc.close()
    harm(folder)
    for open_ in (Node.open, Node.recover):
        with pytest.raises(StateError) as caught:
            open_(folder)
        assert "backup" in caught.value.hint
    (folder / "identity").write_bytes(kept)
    (folder / "identity").chmod(0o600)
    pair.plc = Node.open(folder)
    assert pair.plc.open(pair.frame(), context="line1/temp")


def test_files_that_may_go(pair: Pair) -> None:
    frame = pair.frame()
    pair.plc.open(frame, context="line1/temp")
    pair.plc.close()
    for name in ("lock", "bundle", "audit.log", "audit.head"):
        (pair.folder / "plc" / name).unlink()
    pair.plc = Node.open(pair.folder / "plc")
    with pytest.raises(DuplicateError):
        pair.plc.open(frame, context="line1/temp")


@pytest.mark.parametrize("name", ["state.db", "anchor", "identity", "bundle"])
def test_any_file_cut_or_filled_with_anything(pair: Pair, name: str) -> None:
    pair.close()
    data = (pair.folder / "plc" / name).read_bytes()
    rng = random.Random(name)
    contents = [data[: rng.randrange(len(data))] for _ in range(15)]
    contents += [rng.randbytes(rng.choice((1, 32, 96, 5000))) for _ in range(10)]
    contents += [data[::-1], data + rng.randbytes(9)]
    folder = pair.folder / "copy"
    for content in contents:
        shutil.copytree(pair.folder / "plc", folder)
        (folder / name).write_bytes(content)
        try:
            with Node.open(folder) as node:
                # SQLite does not mind a page that ends early, or what stands behind them all.
                assert name in ("bundle", "state.db")
                (peer,) = node.peers.list()
                assert peer.bundle == pair.sensor.bundle
        except (StateError, ProviderError):
            assert name != "bundle"
        shutil.rmtree(folder)


def test_an_older_store_is_refused(pair: Pair) -> None:
    old = backup(pair)
    frame = pair.frame()
    pair.plc.open(frame, context="line1/temp")
    pair.plc.close()
    put_back(pair.folder / "plc", old, "state.db")
    with pytest.raises(StateRollbackError) as caught:
        Node.open(pair.folder / "plc")
    assert "pqc-iiot recover" in caught.value.hint
    recover_and_use(pair, frame)
    assert any(event.event == "state_rollback" for event in events(pair.plc))


def test_an_older_store_of_a_sender_repeats_no_number(pair: Pair) -> None:
    pair.close()
    shutil.copytree(pair.folder / "sensor", pair.folder / "backup")
    pair.reopen()
    pair.frame()
    pair.sensor.close()
    put_back(pair.folder / "sensor", pair.folder / "backup", "state.db")
    with pytest.raises(StateRollbackError):
        Node.open(pair.folder / "sensor")


def test_an_older_identity_is_refused(pair: Pair) -> None:
    old = backup(pair)
    pair.plc.rotate()
    pair.plc.close()
    newest = pair.folder / "newest"
    shutil.copytree(pair.folder / "plc", newest)
    put_back(pair.folder / "plc", old, "identity")
    with pytest.raises(StateRollbackError, match="identity") as caught:
        Node.open(pair.folder / "plc")
    assert "pqc-iiot recover" in caught.value.hint
    put_back(pair.folder / "plc", newest, "identity")
    pair.plc = Node.open(pair.folder / "plc")
    pair.plc.retire()
    pair.plc.close()
    put_back(pair.folder / "plc", newest, "identity")  # before the old keys were given up
    with pytest.raises(StateRollbackError, match="identity"):
        Node.open(pair.folder / "plc")


def test_a_rotation_cut_short_is_finished(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity file is written, the store has not heard of it: it does at the opening."""
    old = backup(pair)
    with monkeypatch.context() as patch:
        patch.setattr("pqc_iiot.state.store_generation", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pair.plc.rotate()
    pair.plc.close()
    pair.plc = Node.open(pair.folder / "plc")
    assert pair.plc.bundle.serial == 2
    assert pair.plc.status().previous_keys
    assert pair.plc.open(pair.frame(), context="line1/temp")
    pair.plc.close()
    put_back(pair.folder / "plc", old, "identity")
    with pytest.raises(StateRollbackError, match="identity"):
        Node.open(pair.folder / "plc")


def test_other_devices_files(pair: Pair) -> None:
    pair.close()
    plc, sensor = pair.folder / "plc", pair.folder / "sensor"
    for name in ("state.db", "anchor"):
        kept = (plc / name).read_bytes()
        put_back(plc, sensor, name)
        with pytest.raises(StateTamperedError):
            Node.open(plc)
        (plc / name).write_bytes(kept)
        Node.open(plc).close()


def test_the_whole_folder_is_another_device(pair: Pair) -> None:
    pair.sensor.close()
    (pair.folder / "sensor").rename(pair.folder / "moved")
    with Node.open(pair.folder / "moved") as moved:
        assert moved.name == "sensor"
        assert pair.plc.open(moved.seal(b"x", to="plc")).sender == "sensor"


def test_recovery_keeps_the_old_store_beside(pair: Pair) -> None:
    pair.close()
    data = (pair.folder / "plc" / "state.db").read_bytes()
    Node.recover(pair.folder / "plc").close()
    assert (pair.folder / "plc" / "state.db.old").read_bytes() == data
    Node.recover(pair.folder / "plc").close()
    with Node.open(pair.folder / "plc") as plc:
        assert plc.bundle.serial == 3
        assert plc.policy == Policy()


def test_recovery_needs_the_passphrase(tmp_path: Path) -> None:
    for name in ("right", "wrong"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(f"{name} horse battery")
    right, wrong = from_file(tmp_path / "right"), from_file(tmp_path / "wrong")
    Node.create(tmp_path / "a", name="a", passphrase=right, suite=3).close()
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir() if file.is_file()}
    for open_ in (Node.open, Node.recover):
        with pytest.raises(WrongPassphraseError):
            open_(tmp_path / "a", passphrase=wrong)
        with pytest.raises(ProviderError, match="none was given"):
            open_(tmp_path / "a")
    for name in ("identity", "state.db", "anchor"):
        assert (tmp_path / "a" / name).read_bytes() == before[name]
    with Node.recover(tmp_path / "a", passphrase=right) as node:
        assert node.bundle.serial == 2
    with Node.open(tmp_path / "a", passphrase=right) as node:
        assert [e.event for e in events(node)].count("key_unlock_failed") == 2


def test_a_creation_that_fails_can_be_repeated(tmp_path: Path) -> None:
    with pytest.raises(ProviderError):
        Node.create(tmp_path / "a", name="a")  # no passphrase
    with pytest.raises(PqcIiotError):
        Node.create(tmp_path / "a", name="bad name", provider=PLAINTEXT)
    make(tmp_path, "a").close()
    with pytest.raises(PqcIiotError, match="not empty"):
        make(tmp_path, "a")
    Node.open(tmp_path / "a").close()


def test_the_log_tells_the_story_of_a_device(tmp_path: Path) -> None:
    make(tmp_path, "a").close()
    with Node.open(tmp_path / "a") as node:
        log = events(node)
    wanted = {"self_test_passed", "key_made", "key_loaded", "started", "stopped"}
    assert [event.event for event in log if event.event in wanted] == [
        "self_test_passed",
        "key_made",
        "started",
        "stopped",
        "self_test_passed",
        "key_loaded",
        "started",
    ]
    assert {event.device for event in log} == {"a"}


def test_an_edited_last_number_is_not_believed(pair: Pair) -> None:
    frame = pair.frame()
    pair.plc.open(frame, context="line1/temp")
    for value in (b"\x83\x00\x00\x40", b"", "text", 7):
        pair.plc.close()
        with edited(pair.folder / "plc" / "state.db") as db:
            kept = db.execute("SELECT value FROM seen").fetchone()
            db.execute("UPDATE seen SET value = ?", (value,))
        pair.plc = Node.open(pair.folder / "plc")
        with pytest.raises(StateTamperedError) as caught:
            pair.plc.open(frame, context="line1/temp")
        assert "pqc-iiot recover" in caught.value.hint
        pair.plc.close()
        with edited(pair.folder / "plc" / "state.db") as db:
            db.execute("UPDATE seen SET value = ?", kept)
        pair.plc = Node.open(pair.folder / "plc")
        with pytest.raises(DuplicateError):
            pair.plc.open(frame, context="line1/temp")


def test_a_tampered_row_in_use_stops_that_peer_and_accepts_nothing(pair: Pair) -> None:
    """The value of a row is only read when it is needed: then it is not believed."""
    with make(pair.folder, "third") as third:
        third.peers.add_approved(pair.plc.bundle)
        pair.plc.peers.add_approved(third.bundle)
        frames = [pair.frame(), third.seal(b"x", to="plc", context="line1/temp")]
        pair.plc.close()
        with edited(pair.folder / "plc" / "state.db") as db:
            key = third.bundle.fingerprint
            db.execute("UPDATE peers SET value = value || x'00' WHERE key = ?", (key,))
        pair.plc = Node.open(pair.folder / "plc")
        incoming = [Incoming(frame, "line1/temp") for frame in frames]
        for batch in (incoming, incoming[::-1]):
            with pytest.raises(StateTamperedError):
                pair.plc.open_many(batch)
            assert seen_rows(pair.plc) == []
        assert events(pair.plc)[-1].event == "state_tampered"
        (result,) = pair.plc.open_many(incoming[:1])
        assert isinstance(result, Message)


def test_recovery_keeps_the_policy_that_is_authentic_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    policy = Policy(suites="hybrid")
    Node.create(folder, name="a", provider=PLAINTEXT, policy=policy).close()
    (folder / "anchor").unlink()
    with Node.recover(folder) as node:
        assert node.policy == policy
    (folder / "state.db").unlink()
    with Node.recover(folder) as node:
        assert node.policy == Policy()
