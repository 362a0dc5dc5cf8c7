"""How often hardware is asked: never for what it need not perform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import emulated
from devices import make
from emulated import Device
from pqc_iiot import Node, UnknownPeerError
from pqc_iiot.errors import AuthenticationError, KeyNotFoundError, ProviderError
from pqc_iiot.providers import ProviderRequest
from pqc_iiot.providers.keys import Keys

FRAMES = 20


@pytest.fixture
def device(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Node, Node]]:
    """A device of the suite that is asked for, and a peer in software."""
    suite, uri = request.param, f"{emulated.SCHEME}:{tmp_path / 'hardware'}"
    with (
        Node.create(tmp_path / "device", name="device", suite=suite, provider=uri) as device,
        make(tmp_path, "peer", suite) as peer,
    ):
        device.peers.add_approved(peer.bundle)
        peer.peers.add_approved(device.bundle)
        device.seal(b"x", to="peer")  # the first block of numbers
        device.audit.flush()
        Device.calls.clear()
        yield device, peer


@pytest.mark.parametrize(
    ("device", "expected"),
    [(1, {}), (5, {}), (6, {"sign": FRAMES})],
    indirect=["device"],
    ids=["sealed", "sealed, CNSA 2.0", "split"],
)
def test_sealing_costs_no_call_but_the_signature_s(
    device: tuple[Node, Node], expected: dict[str, int]
) -> None:
    sender, receiver = device
    frames = [sender.seal(b"x", to="peer") for _ in range(FRAMES)]
    assert Counter(Device.calls) == expected
    assert all(receiver.open(frame).payload == b"x" for frame in frames)


@pytest.mark.parametrize(
    ("device", "expected"),
    [(1, {}), (6, {"agree": FRAMES})],
    indirect=["device"],
    ids=["sealed", "split"],
)
def test_opening_costs_one_call_where_a_half_is_outside(
    device: tuple[Node, Node], expected: dict[str, int]
) -> None:
    receiver, sender = device
    frames = [sender.seal(b"x", to="device") for _ in range(FRAMES)]
    assert all(receiver.open(frame).payload == b"x" for frame in frames)
    assert Counter(Device.calls) == expected


@pytest.mark.parametrize("device", [6], indirect=True)
def test_a_forged_frame_costs_no_call_before_its_sender_is_known(
    device: tuple[Node, Node], tmp_path: Path
) -> None:
    receiver, _ = device
    with make(tmp_path, "stranger", 6) as stranger:
        stranger.peers.add_approved(receiver.bundle)
        frames = [stranger.seal(b"x", to="device") for _ in range(5)]
    for frame in frames:
        with pytest.raises(UnknownPeerError):
            receiver.open(frame)
    assert Device.calls == []


@pytest.mark.parametrize("device", [6], indirect=True)
def test_memory_and_disk_without_the_device_sign_and_open_nothing(
    device: tuple[Node, Node], tmp_path: Path
) -> None:
    """The key set in memory, and its device gone: what a thief of both has."""
    thief, peer = device
    frame = peer.seal(b"secret", to="device")
    for key in (tmp_path / "hardware").glob("????????????????"):
        key.unlink()
    state = thief._state
    assert state is not None
    keys = state.identity.current.keys
    with pytest.raises(KeyNotFoundError):
        state.identity.provider.load(keys.suite, state.identity.current.blob)
    # The halves that are in memory, joined with those of another device.
    strange, _ = emulated.EmulatedProvider(_request(tmp_path / "another")).generate(keys.suite)
    assert isinstance(keys, Keys)
    assert isinstance(strange, Keys)
    for mine, theirs in ((keys.kem, strange.kem), (keys.sig, strange.sig)):
        vars(mine)["_classical"] = vars(theirs)["_classical"]
    with pytest.raises(AuthenticationError):
        thief.open(frame)
    forged = thief.seal(b"command", to="peer")
    with pytest.raises(AuthenticationError):
        peer.open(forged)


def _request(folder: Path) -> ProviderRequest:
    return ProviderRequest(str(folder), None, None)


@pytest.mark.parametrize("device", [6], indirect=True)
def test_a_device_that_is_gone_for_a_moment_loses_no_frame(device: tuple[Node, Node]) -> None:
    sender, receiver = device
    emulated.fail_next("sign")
    with pytest.raises(ProviderError):
        sender.seal(b"x", to="peer")
    assert receiver.open(sender.seal(b"again", to="peer")).payload == b"again"
