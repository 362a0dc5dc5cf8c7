"""New keys for a device, and how long the old ones count."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices import Pair, copy, refused
from pqc_iiot import (
    Incoming,
    Message,
    Node,
    Policy,
    PolicyError,
    RevokedPeerError,
    UnknownPeerError,
)
from pqc_iiot.errors import WrongRecipientError


def test_rotation_keeps_messages_flowing(pair: Pair) -> None:
    to_old = pair.plc.seal(b"to old keys", to="sensor")
    before = pair.sensor.bundle
    after = pair.sensor.rotate()
    assert after.previous == before.fingerprint
    assert (after.name, after.serial) == ("sensor", before.serial + 1)
    assert pair.sensor.open(to_old).payload == b"to old keys"
    with refused(pair.plc, UnknownPeerError, "refused_unknown_peer"):
        pair.plc.open(pair.frame(), context="line1/temp")
    assert pair.plc.peers.add(after.encoded)
    assert pair.plc.open(pair.frame(), context="line1/temp").fingerprint == after.fingerprint
    to_new = pair.plc.seal(b"to new keys", to="sensor")
    pair.reopen()
    assert pair.sensor.open(to_new).payload == b"to new keys"


def test_retired_keys_open_nothing(pair: Pair) -> None:
    to_old, again = (pair.plc.seal(b"x", to="sensor") for _ in range(2))
    pair.sensor.rotate()
    assert pair.sensor.status().previous_keys
    assert pair.sensor.open(to_old)
    pair.sensor.retire()
    assert not pair.sensor.status().previous_keys
    for _ in range(2):
        with refused(pair.sensor, WrongRecipientError, "refused_wrong_recipient"):
            pair.sensor.open(again)
        pair.reopen()


def test_keys_before_the_ones_before_open_nothing(pair: Pair) -> None:
    frame = pair.plc.seal(b"x", to="sensor")
    pair.sensor.rotate()
    pair.sensor.rotate()
    with refused(pair.sensor, WrongRecipientError, "refused_wrong_recipient"):
        pair.sensor.open(frame)


def test_a_rotation_that_policy_forbids_changes_nothing(pair: Pair) -> None:
    pair.sensor.policy = Policy(suites="hybrid")
    before = pair.sensor.bundle
    with pytest.raises(PolicyError):
        pair.sensor.rotate(3)
    assert pair.sensor.bundle is before
    assert pair.plc.open(pair.frame(), context="line1/temp")


def test_the_overlap_of_old_keys_ends(pair: Pair, devices: Path, tmp_path: Path) -> None:
    pair.plc.policy = Policy(rotation_overlap=3)
    copy(devices, tmp_path / "old", "sensor")
    with Node.open(tmp_path / "old" / "sensor") as old:  # somebody has a copy of the old keys
        pair.plc.peers.add(pair.sensor.rotate())
        for _ in range(5):  # without a frame under the new keys there is no end
            assert pair.plc.open(old.seal(b"old", to="plc"))
        for _ in range(3):
            assert pair.plc.open(old.seal(b"old", to="plc"))
            assert pair.plc.open(pair.frame(), context="line1/temp")
        assert pair.plc.open(old.seal(b"old", to="plc"))
        assert pair.plc.open(pair.frame(), context="line1/temp")
        for _ in range(2):
            with refused(pair.plc, RevokedPeerError, "refused_revoked_peer"):
                pair.plc.open(old.seal(b"old", to="plc"))
            pair.reopen()


def test_the_overlap_ends_with_the_next_rotation(pair: Pair, devices: Path, tmp_path: Path) -> None:
    copy(devices, tmp_path / "old", "sensor")
    with Node.open(tmp_path / "old" / "sensor") as old:
        pair.plc.peers.add(pair.sensor.rotate())
        assert pair.plc.open(old.seal(b"old", to="plc"))
        pair.plc.peers.add(pair.sensor.rotate())
        with refused(pair.plc, RevokedPeerError, "refused_revoked_peer"):
            pair.plc.open(old.seal(b"old", to="plc"))


def test_no_overlap_by_policy(pair: Pair, devices: Path, tmp_path: Path) -> None:
    pair.plc.policy = Policy(rotation_overlap=0)
    copy(devices, tmp_path / "old", "sensor")
    with Node.open(tmp_path / "old" / "sensor") as old:
        pair.plc.peers.add(pair.sensor.rotate())
        assert pair.plc.open(pair.frame(), context="line1/temp")
        with refused(pair.plc, RevokedPeerError, "refused_revoked_peer"):
            pair.plc.open(old.seal(b"old", to="plc"))


def test_the_overlap_ends_within_a_batch_as_well(pair: Pair, devices: Path, tmp_path: Path) -> None:
    pair.plc.policy = Policy(rotation_overlap=2)
    copy(devices, tmp_path / "old", "sensor")
    with Node.open(tmp_path / "old/sensor") as old:
        late = old.seal(b"late", to="plc", context="line1/temp")
    pair.plc.peers.add(pair.sensor.rotate())
    batch = [Incoming(frame, "line1/temp") for frame in (*(pair.frame() for _ in range(3)), late)]
    *new, last = pair.plc.open_many(batch)
    assert all(isinstance(each, Message) for each in new)
    assert isinstance(last, RevokedPeerError)
