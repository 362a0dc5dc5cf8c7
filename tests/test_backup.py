"""Backups: what is in them, and that no restored device repeats or accepts anything again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import pqc
from devices import PLAINTEXT, Pair, events, introduce, make, refused, seen_rows
from pqc_iiot import (
    InvalidInputError,
    Node,
    PeerKeyChangedError,
    PeerState,
    Policy,
    PolicyError,
    ProviderError,
    RevokedPeerError,
    StateError,
    cose,
)
from pqc_iiot.backup import JUMP
from pqc_iiot.envelope import parse
from pqc_iiot.errors import ClonedIdentityError, WrongPassphraseError, WrongRecipientError
from pqc_iiot.freshness import MAX_SEQUENCE, Freshness
from pqc_iiot.providers import SCHEMES, Custody, PassphraseSource, ProviderRequest
from pqc_iiot.providers.passphrase import from_file
from pqc_iiot.providers.software import SoftwareProvider
from pqc_iiot.store import META, PEERS, SEEN, Row


def secret(folder: Path, name: str = "backup") -> PassphraseSource:
    file = folder / f"{name}.passphrase"
    file.touch(0o600)
    file.write_text(f"correct horse {name} staple\n")
    return from_file(file)


@pytest.fixture
def passphrase(tmp_path: Path) -> PassphraseSource:
    return secret(tmp_path)


def restore(pair: Pair, data: bytes, name: str = "restored", **more: Any) -> Node:
    more = {"provider": PLAINTEXT} | more
    return Node.restore(pair.folder / name, data, secret(pair.folder), **more)


# What comes back


def test_a_restored_device_is_taken_for_a_rotation(
    pair: Pair, passphrase: PassphraseSource
) -> None:
    pair.plc.policy = Policy(max_pending=7)
    assert pair.plc.open(pair.frame(), context="line1/temp")
    data = pair.plc.backup(passphrase)
    before = pair.plc.bundle
    pair.plc.close()
    shutil.rmtree(pair.folder / "plc")  # the device burnt
    pair.plc = restore(pair, data)
    after = pair.plc.bundle
    assert (after.name, after.serial, after.previous) == ("plc", 2, before.fingerprint)
    assert pair.plc.policy == Policy(max_pending=7)
    assert [peer.name for peer in pair.plc.peers.list()] == ["sensor"]
    pair.sensor.peers.add(after.encoded)  # nobody approves anything
    assert pair.plc.open(pair.frame(b"after"), context="line1/temp").payload == b"after"
    assert pair.sensor.open(pair.plc.seal(b"back", to="sensor")).payload == b"back"
    pair.plc.close()
    pair.plc = Node.open(pair.folder / "restored")
    assert pair.plc.open(pair.frame(b"again"), context="line1/temp").payload == b"again"
    (event,) = [event for event in events(pair.plc) if event.event == "state_restored"]
    assert event.detail["predecessor"] == before.fingerprint.hex()


def test_every_state_of_trust_comes_back(pair: Pair, passphrase: PassphraseSource) -> None:
    with make(pair.folder, "press") as press, make(pair.folder, "robot") as robot:
        for other in (press, robot):
            pair.plc.peers.add_approved(other.bundle)
            other.peers.add_approved(pair.plc.bundle)
        pair.plc.peers.revoke("press")
        pair.plc.peers.add(robot.rotate().encoded)
        pair.plc.open(pair.frame(), context="line1/temp")
        before = pair.plc.peers.list(), seen_rows(pair.plc)
        data = pair.plc.backup(passphrase)
        with restore(pair, data) as plc:
            assert [(p.name, p.state, p.bundle) for p in plc.peers.list()] == [
                (p.name, p.state, p.bundle) for p in before[0]
            ]
            assert seen_rows(plc) == before[1]  # so an overlap does not begin again
            assert {p.state for p in plc.peers.list()} == {
                PeerState.APPROVED,
                PeerState.REVOKED,
                PeerState.SUPERSEDED,
            }
            with pytest.raises(RevokedPeerError):
                plc.seal(b"x", to="press")


def test_what_was_seen_of_peers_logs_comes_back(pair: Pair, passphrase: PassphraseSource) -> None:
    pair.plc.witness.receive(
        pair.plc.open(pair.sensor.witness.request("plc"), context=pair.plc.witness.own_context)
    )
    kept = meta(pair.plc, b"witness of ")
    assert kept
    with restore(pair, pair.plc.backup(passphrase)) as plc:
        assert meta(plc, b"witness of ") == kept
        assert meta(plc, b"witnessed by ") == []  # its own log is another one


def meta(node: Node, prefix: bytes) -> list[Row]:
    assert node._state is not None
    return [row for row in node._state.store.rows(META) if row.key.startswith(prefix)]


# What never happens again


def test_no_captured_frame_means_anything_to_it(pair: Pair, passphrase: PassphraseSource) -> None:
    """Not those from before the backup, and not those that it has never heard of."""
    early = pair.frame(b"early")
    pair.plc.open(early, context="line1/temp")
    data = pair.plc.backup(passphrase)
    late = [pair.frame(b"%d" % i) for i in range(3)]
    for frame in late[:2]:
        pair.plc.open(frame, context="line1/temp")
    pair.plc.close()
    pair.plc = restore(pair, data)
    for frame in (early, *late):
        with refused(pair.plc, WrongRecipientError, "refused_wrong_recipient"):
            pair.plc.open(frame, context="line1/temp")


def test_no_number_comes_twice_even_with_its_name(pair: Pair, passphrase: PassphraseSource) -> None:
    """The original went on after the backup; the restored device is above all of it."""
    data = pair.sensor.backup(passphrase)
    used = [parse(pair.frame()).sequence for _ in range(5000)]
    with restore(pair, data) as sensor:
        first = parse(sensor.seal(b"x", to="plc")).sequence
        assert first > JUMP > max(used)
        with restore(pair, sensor.backup(passphrase), "third") as third:
            assert parse(third.seal(b"x", to="plc")).sequence > first + JUMP - 2000


def test_numbers_that_are_used_up(
    pair: Pair, passphrase: PassphraseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.backup.JUMP", MAX_SEQUENCE)
    with pytest.raises(InvalidInputError, match="no sequence numbers"):
        restore(pair, pair.plc.backup(passphrase))
    assert not (pair.folder / "restored").exists()


def test_restored_twice_has_two_keys_and_peers_follow_one(
    pair: Pair, passphrase: PassphraseSource
) -> None:
    data = pair.sensor.backup(passphrase)
    with restore(pair, data, "one") as one, restore(pair, data, "two") as two:
        assert one.bundle.fingerprint != two.bundle.fingerprint
        pair.plc.peers.add(one.bundle.encoded)
        assert pair.plc.open(one.seal(b"x", to="plc")).payload == b"x"
        with refused(pair.plc, PeerKeyChangedError, "refused_peer_key_changed"):
            pair.plc.peers.add(two.bundle.encoded)


def test_an_original_that_lives_on_learns_of_it(pair: Pair, passphrase: PassphraseSource) -> None:
    data = pair.plc.backup(passphrase)
    with restore(pair, data) as restored:
        with refused(pair.plc, ClonedIdentityError, "refused_cloned_identity"):
            pair.plc.peers.add(restored.bundle.encoded)
        pair.plc.rotate()  # now both are successors of the same keys
        with pytest.raises(ClonedIdentityError):
            pair.plc.peers.add(restored.bundle.encoded)
        with pytest.raises(InvalidInputError):
            pair.plc.peers.add(pair.plc.bundle.encoded)


# Who can read it


def test_it_holds_no_key_that_opens_a_frame_and_nothing_in_plain(
    pair: Pair, passphrase: PassphraseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: list[Any] = []

    def kept(value: object) -> bytes:
        plain.append(value)
        return encode(value)

    encode = cose.dumps
    monkeypatch.setattr("pqc_iiot.backup.cose.dumps", kept)
    data = pair.plc.backup(passphrase)
    for visible in (pair.plc.bundle.sig_public_key[:32], b"sensor", b"plc"):
        assert visible not in data
    assert pair.plc._state is not None
    (content,) = [each for each in plain if len(each) == 5 and pair.plc.bundle.encoded in each]
    _, signer, policy, edge, rows = content
    assert policy == pair.plc.policy.encode()
    assert edge == pair.plc.status().numbers_reserved
    blob: Any = cose.loads(pair.plc._state.identity.current.blob, 16384, "the blob")
    assert [len(part) for part in signer] == [len(blob[1])]  # the signature key's
    assert {row[1] for row in rows} == {pair.sensor.bundle.fingerprint}


def test_another_passphrase_or_another_byte(pair: Pair, passphrase: PassphraseSource) -> None:
    data = pair.plc.backup(passphrase)
    folder = pair.folder / "restored"
    with pytest.raises(WrongPassphraseError, match="backup"):
        Node.restore(folder, data, secret(pair.folder, "other"), provider=PLAINTEXT)
    with pytest.raises(ProviderError, match="none was given"):
        Node.restore(folder, data, None, provider=PLAINTEXT)
    # The array's head, words, version, salt, costs, the sealed key, the content, its tag.
    for at in (0, 3, 17, 22, 42, 60, 90, 300, len(data) // 2, len(data) - 1):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((InvalidInputError, ProviderError)):
            Node.restore(folder, changed, passphrase, provider=PLAINTEXT)
    for cut in (0, 20, len(data) - 1):
        with pytest.raises((InvalidInputError, ProviderError)):
            Node.restore(folder, data[:cut], passphrase, provider=PLAINTEXT)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (cose.dumps(["pqc-iiot backup", 2, "anything"]), "version 2"),
        (cose.dumps(["another file", 1, b"", b"", b""]), "no backup"),
        (b"junk", "CBOR"),
        (b"", "CBOR"),
    ],
)
def test_what_is_no_backup(tmp_path: Path, data: bytes, text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        Node.restore(tmp_path / "x", data, secret(tmp_path), provider=PLAINTEXT)


def test_costs_in_the_header_are_not_believed(pair: Pair, passphrase: PassphraseSource) -> None:
    """Before the passphrase nothing vouches for them: a gigabyte is not tried."""
    whole: Any = cose.loads(pair.plc.backup(passphrase), 1 << 20, "the backup")
    front = list(whole)
    header: Any = cose.loads(front[2], 1024, "the header")
    salt, _, passes, lanes, kept = header
    front[2] = cose.dumps([salt, 1 << 20, passes, lanes, kept])
    with pytest.raises(ProviderError, match="header"):
        restore(pair, cose.dumps(front))


# Where it is restored


def test_never_over_another_device(pair: Pair, passphrase: PassphraseSource) -> None:
    data = pair.plc.backup(passphrase)
    pair.plc.close()
    before = (pair.folder / "plc" / "identity").read_bytes()
    with pytest.raises(InvalidInputError, match="not empty"):
        restore(pair, data, "plc")
    assert (pair.folder / "plc" / "identity").read_bytes() == before
    pair.plc = Node.open(pair.folder / "plc")


def test_a_restoration_cut_short_leaves_no_device(
    pair: Pair, passphrase: PassphraseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pair.plc.backup(passphrase)
    with monkeypatch.context() as patch:
        patch.setattr(Freshness, "initialise", staticmethod(lambda *_: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            restore(pair, data)
    with pytest.raises(StateError, match="there is no device"):
        Node.open(pair.folder / "restored")


def test_the_policy_of_the_backup_rules_over_the_new_keys(
    pair: Pair, passphrase: PassphraseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.state.require_custody", lambda *_: None)
    pair.plc.policy = Policy(min_custody=Custody.SEALED)
    with pytest.raises(PolicyError):
        restore(pair, pair.plc.backup(passphrase))


def test_keys_in_hardware_stay_there(
    tmp_path: Path, passphrase: PassphraseSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the backup has what the hardware sealed, and only the same hardware opens it."""

    class Sealed(SoftwareProvider):
        scheme = "sealed"

        custody = Custody.SEALED

        def __init__(self, request: ProviderRequest) -> None:
            super().__init__(ProviderRequest("insecure-plaintext-keys", request.header, None))

    monkeypatch.setitem(SCHEMES, "sealed", Sealed)
    with Node.create(tmp_path / "plc", name="plc", provider="sealed:", suite=3) as plc:
        data, before = plc.backup(passphrase), plc.bundle
    with Node.restore(tmp_path / "b", data, passphrase, provider="sealed:") as restored:
        assert restored.bundle.previous == before.fingerprint
    monkeypatch.delitem(SCHEMES, "sealed")
    with pytest.raises(ProviderError):
        Node.restore(tmp_path / "c", data, passphrase, provider=PLAINTEXT)


# Whether it is still good


def test_status_tells_when_a_backup_is_out_of_date(
    pair: Pair, passphrase: PassphraseSource
) -> None:
    assert pair.plc.status().backup == "none"
    changes: list[Callable[[], object]] = [
        lambda: pair.plc.peers.revoke("sensor"),
        lambda: setattr(pair.plc, "policy", Policy(max_pending=9)),
        pair.plc.rotate,
    ]
    pair.plc.open(pair.frame(), context="line1/temp")
    for change in changes:
        pair.plc.backup(passphrase)
        assert pair.plc.status().backup == "current"
        pair.plc.seal(b"x", to="sensor") if change is changes[0] else None
        assert pair.plc.status().backup == "current"
        change()
        assert pair.plc.status().backup == "outdated"


def test_a_backup_from_before_a_rotation_needs_approval_again(
    pair: Pair, passphrase: PassphraseSource
) -> None:
    """Its keys are not the ones that peers know last: refused loudly, never taken quietly."""
    data = pair.plc.backup(passphrase)
    pair.sensor.peers.add(pair.plc.rotate().encoded)
    with restore(pair, data) as plc, pytest.raises(PeerKeyChangedError):
        pair.sensor.peers.add(plc.bundle.encoded)


# The command line


def test_backup_and_restore_by_command(devices: Path, tmp_path: Path) -> None:
    with make(tmp_path, "sensor") as sensor, make(tmp_path, "plc") as plc:
        introduce(sensor, plc)
    secret(tmp_path)
    secret(tmp_path, "new")
    by = f"--backup-passphrase-file {tmp_path}/backup.passphrase"
    file = tmp_path / "plc.backup"
    made = pqc(f"--state {tmp_path}/plc backup {file} {by}")
    assert (made.code, file.stat().st_mode & 0o777) == (0, 0o600), made.err
    new = f"--passphrase-file {tmp_path}/new.passphrase"
    done = pqc(f"--state {tmp_path}/b {new} restore {file} {by} --json")
    assert done.code == 0, done.err
    assert done.data["serial"] == 2
    assert "sensor" in pqc(f"--state {tmp_path}/b {new} peer list").out
    assert pqc(f"--state {tmp_path}/b {new} restore {file} {by}").code == 2
    plain = pqc(f"--state {tmp_path}/c restore {file} {by} --insecure-plaintext-keys")
    assert (plain.code, "PLAIN TEXT" in plain.err) == (0, True)
    wrong = f"--backup-passphrase-file {tmp_path}/new.passphrase"
    refusal = pqc(f"--state {tmp_path}/d restore {file} {wrong} --insecure-plaintext-keys")
    assert refusal.code == 1
    assert "does not open" in refusal.err


def test_tables_that_a_backup_keeps() -> None:
    """Rows name their table by its place: a change of the places is another version."""
    from pqc_iiot.backup import _TABLES

    assert _TABLES == (META, PEERS, SEEN)
