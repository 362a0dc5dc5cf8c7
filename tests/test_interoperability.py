"""Our devices and one that shares no code with them understand each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices import make
from foreign import SUITES, Foreign, ForeignPeer
from pqc_iiot.bundle import parse_bundle


@pytest.mark.parametrize("ours", SUITES)
@pytest.mark.parametrize("theirs", SUITES)
def test_both_ways(tmp_path: Path, ours: int, theirs: int) -> None:
    foreign = Foreign(theirs)
    with make(tmp_path, "ours", ours) as node:
        bundle = parse_bundle(foreign.bundle())
        assert bundle.fingerprint == foreign.fingerprint
        node.peers.add_approved(bundle)
        peer = ForeignPeer.of(node.bundle.encoded)
        assert (peer.name, peer.suite) == ("ours", ours)
        assert peer.fingerprint == node.bundle.fingerprint
        for number, payload in enumerate((b"", b"21.5", bytes(70_000)), 1):
            message = node.open(foreign.seal(payload, peer, "line1"), context="line1")
            assert (message.sender, message.sequence) == ("foreign", number)
            assert message.payload == payload
            frame = node.seal(payload, to="foreign", context="line1")
            assert foreign.open(frame, peer, "line1") == (number, payload)


@pytest.mark.parametrize("suite", SUITES)
def test_a_foreign_rotation(tmp_path: Path, suite: int) -> None:
    before, after = Foreign(suite), Foreign(1, serial=2)
    with make(tmp_path, "ours") as node:
        node.peers.add_approved(before.bundle())
        node.peers.add(after.bundle(before))
        peer = ForeignPeer.of(node.bundle.encoded)
        assert node.open(after.seal(b"x", peer)).fingerprint == after.fingerprint
        rotated = node.rotate(suite)
        assert ForeignPeer.of(rotated.encoded).suite == suite
