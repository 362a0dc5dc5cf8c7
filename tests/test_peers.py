"""The allow-list as a node shows it: each change and each refusal leaves its event."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from devices import Pair, events, make
from foreign import Foreign
from pqc_iiot import (
    InvalidBundleError,
    InvalidInputError,
    Node,
    PeerKeyChangedError,
    PeerState,
    Policy,
    PolicyError,
    RevokedPeerError,
    TofuWarning,
    Trust,
    UnknownPeerError,
)
from pqc_iiot.bundle import MAX_BUNDLE_SIZE


def story(node: Node) -> list[tuple[str, str, str]]:
    """Event, severity and name of what a log says of peers and refusals."""
    return [
        (event.event, event.severity.label, str(event.detail.get("name", "")))
        for event in events(node)
        if event.id[4] in "34"
    ]


def test_from_unknown_to_revoked(tmp_path: Path) -> None:
    device = Foreign(3, "press")
    with make(tmp_path, "plc") as plc:
        assert plc.peers.add(device.bundle()) is None
        assert [bundle.name for bundle in plc.peers.pending()] == ["press"]
        assert plc.peers.counts() == (0, 1)
        peer = plc.peers.approve("press")
        assert plc.peers.get("press").fingerprint == peer.fingerprint == device.fingerprint
        assert plc.peers.get(device.fingerprint.hex()).name == "press"
        assert [peer.name for peer in plc.peers.list()] == ["press"]
        (revoked,) = plc.peers.revoke("press")
        assert revoked.state is PeerState.REVOKED
        with pytest.raises(RevokedPeerError):
            plc.peers.add(device.bundle())
        assert plc.peers.get("press").state is PeerState.REVOKED
        assert story(plc) == [
            ("peer_pending", "low", "press"),
            ("peer_approved", "medium", "press"),
            ("peer_revoked", "high", "press"),
            ("refused_revoked_peer", "high", "press"),
        ]
        fingerprints = {event.peer for event in events(plc) if event.id[4] in "34"}
        assert fingerprints == {device.fingerprint.hex()}


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    devices = [Foreign(3, name) for name in ("waiting", "approved", "revoked")]
    with make(tmp_path, "plc") as plc:
        for device in devices:
            plc.peers.add(device.bundle())
        plc.peers.approve("approved")
        plc.peers.approve("revoked")
        plc.peers.revoke("revoked")
    with Node.open(tmp_path / "plc") as plc:
        assert [bundle.name for bundle in plc.peers.pending()] == ["waiting"]
        states = {peer.name: peer.state for peer in plc.peers.list()}
        assert states == {"approved": PeerState.APPROVED, "revoked": PeerState.REVOKED}


def test_tofu_is_loud(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    first, second = Foreign(3, "press"), Foreign(3, "press")
    with make(tmp_path, "plc", policy=Policy(trust=Trust.TOFU)) as plc:
        with pytest.warns(TofuWarning, match="press"):
            plc.peers.add(first.bundle())
        with pytest.raises(PeerKeyChangedError):
            plc.peers.add(second.bundle())
        assert story(plc) == [
            ("peer_pinned", "high", "press"),
            ("refused_peer_key_changed", "high", "press"),
        ]


def test_tofu_warns_on_stderr_by_default(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import subprocess
    import sys

    bundle = tmp_path / "press.bundle"
    bundle.write_bytes(Foreign(3, "press").bundle())
    program = (
        "import sys; from pqc_iiot import *; "
        "n = Node.create(sys.argv[1], name='plc', provider='software:insecure-plaintext-keys', "
        "policy=Policy(trust=Trust.TOFU)); n.peers.add_file(sys.argv[2]); n.close()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "plc"), str(bundle)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "TofuWarning: trusted on first use: press" in ran.stderr
    assert ran.stdout == ""


def test_rotation_is_logged_with_both_fingerprints(tmp_path: Path) -> None:
    before, after = Foreign(3, "press"), Foreign(1, "press", serial=2)
    with make(tmp_path, "plc") as plc:
        plc.peers.add_approved(before.bundle())
        plc.peers.add(after.bundle(before))
        rotated = events(plc)[-1]
    assert (rotated.event, rotated.peer) == ("peer_rotated", after.fingerprint.hex())
    assert rotated.detail["predecessor"] == before.fingerprint.hex()
    assert rotated.detail["serial"] == 2


@pytest.mark.parametrize("data", [b"", b"junk", bytes(20_000), b"\xd8\x62\x84"])
def test_junk_is_refused_with_an_event(pair: Pair, data: bytes) -> None:
    before = pair.plc.peers.counts()
    with pytest.raises(InvalidBundleError):
        pair.plc.peers.add(data, transport="mqtt")
    last = events(pair.plc)[-1]
    assert (last.event, last.detail["length"], last.detail["transport"]) == (
        "refused_invalid_bundle",
        len(data),
        "mqtt",
    )
    assert pair.plc.peers.counts() == before


def test_what_policy_forbids_is_refused_with_an_event(pair: Pair) -> None:
    pair.plc.policy = Policy(suites="cnsa2")
    with pytest.raises(PolicyError):
        pair.plc.peers.add(Foreign(1, "press").bundle())
    assert events(pair.plc)[-1].event == "refused_policy"
    assert pair.plc.peers.add(Foreign(5, "press").bundle()) is None


def test_a_flood_leaves_the_bound_and_one_event_each(tmp_path: Path) -> None:
    with make(tmp_path, "plc", policy=Policy(max_pending=2)) as plc:
        for i in range(5):
            plc.peers.add(Foreign(3, f"flood-{i}").bundle())
        assert [bundle.name for bundle in plc.peers.pending()] == ["flood-3", "flood-4"]
        dropped = [event for event in story(plc) if event[0] == "peer_pending_dropped"]
        assert [name for _, _, name in dropped] == ["flood-0", "flood-1", "flood-2"]


def test_own_bundle_is_a_mistake_and_no_event(pair: Pair) -> None:
    before = len(events(pair.plc))
    with pytest.raises(InvalidInputError):
        pair.plc.peers.add(pair.plc.bundle)
    assert len(events(pair.plc)) == before


def test_files(pair: Pair, tmp_path: Path) -> None:
    file = tmp_path / "press.bundle"
    with pytest.raises(InvalidInputError, match="cannot be read"):
        pair.plc.peers.add_file(file)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        pair.plc.peers.add_file(tmp_path)
    file.write_bytes(Foreign(3, "press").bundle())
    pair.plc.peers.add_file(str(file))
    assert [bundle.name for bundle in pair.plc.peers.pending()] == ["press"]
    with file.open("r+b") as large:
        large.truncate(1 << 40)  # sparse: read as a whole it would not fit anywhere
    with pytest.raises(InvalidBundleError, match="longer"):
        pair.plc.peers.add_file(file)
    assert file.stat().st_size > MAX_BUNDLE_SIZE


@pytest.mark.parametrize("what", ["", "nobody", "0" * 64, "x" * 1000, "a\0b", "' OR 1=1 --"])
def test_nobody_is_found(pair: Pair, what: str) -> None:
    for act in (pair.plc.peers.approve, pair.plc.peers.revoke, pair.plc.peers.get):
        with pytest.raises(UnknownPeerError):
            act(what)
    assert pair.plc.peers.get("sensor").state is PeerState.APPROVED


def test_changes_from_many_threads(tmp_path: Path) -> None:
    devices = [Foreign(3, f"p{i}") for i in range(16)]
    with make(tmp_path, "plc") as plc:

        def come(device: Foreign) -> None:
            plc.peers.add(device.bundle())
            plc.peers.approve(device.fingerprint.hex())
            plc.peers.get(device.name)

        threads = [threading.Thread(target=come, args=(device,)) for device in devices]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert plc.peers.counts() == (16, 0)
    with Node.open(tmp_path / "plc") as plc:
        assert plc.peers.counts() == (16, 0)
