"""What strangers and forgers may do to sessions: nothing, within bounds."""

from __future__ import annotations

import pytest

from pqc_iiot import RevokedPeerError
from pqc_iiot.session import Fate, Limits, Send, frames
from pqc_iiot.session.frames import Kind
from session_network import Network
from test_session_rules import connected, message_1_of, only_refused, packet_of, sends


def test_too_many_forgeries_renew_the_session() -> None:
    network = connected(Limits(rekey_failures=3))
    packet = packet_of(network, "t")
    for at in (-1, -2, -3):
        bad = bytearray(packet)
        bad[at] ^= 1
        only_refused(network.b, network.now, bytes(bad), "t")
    network.b.sessions.receive(network.now, packet, "t")
    network.run(5)
    assert [each.began for each in network.b.established][-1]
    assert len(network.a.established) == len(network.b.established) == 2


def test_a_peer_cannot_carry_a_handshake_in_somebody_elses_name() -> None:
    network = connected()
    (link,) = network.a.sessions._links.values()
    assert link.current is not None
    link.current.control(frames.Control.HANDSHAKE, message_1_of("evil", "b"))
    (packet,) = sends(network.a)
    network.b.sessions.receive(network.now, packet, None)
    assert sends(network.b) == []
    assert network.b.refused[-1].error.code == "invalid_frame"


@pytest.mark.parametrize("window", [0, 8])
def test_a_packet_opens_once_and_only_on_its_topic(window: int) -> None:
    network = connected(Limits(window=window))
    network.a.hand_over(network.now)
    first, second = (packet_of(network, "t") for _ in range(2))
    b, now = network.b, network.now
    assert only_refused(b, now, first, "u").error.code == "authentication_failed"
    assert only_refused(b, now, first, None).error.code == "authentication_failed"
    b.sessions.receive(now, second, "t")
    b.take()
    count = len(b.delivered)
    if window:
        b.sessions.receive(now, first, "t")
        b.take()
        assert len(b.delivered) == count + 1
    for packet in (first, second):
        assert only_refused(b, now, packet, "t").error.code == "replay"


def test_nothing_forged_changes_anything_at_any_step() -> None:
    network = Network(5, Limits(sender_burst=100))
    network.a.hand_over(network.now)
    seen = 0
    network.collect()
    while network.flights:
        flight = network.flights[0]
        device = network.devices[flight.to]
        for at in {*range(12), len(flight.frame) // 2, len(flight.frame) - 1}:
            if flight.frame[0] == Kind.MESSAGE_1 and at > 12:
                continue  # Message 1 proves nothing: see the next tests.
            bad = bytearray(flight.frame)
            bad[at] ^= 0x40
            only_refused(device, network.now, bytes(bad), flight.context)
        for size in {0, 1, 4, 5, 8, 9, 20, len(flight.frame) - 1}:
            only_refused(device, network.now, flight.frame[:size], flight.context)
        network.step(network.now + 60)
        seen |= 1 << flight.frame[0]
    assert seen == 0b111110
    network.settle()
    assert list(network.a.fates.values()) == [Fate.CONFIRMED]


def test_strangers_cost_nothing_and_a_flood_in_a_peers_name_is_bounded() -> None:
    network = connected()
    a, b = network.a, network.b
    assert only_refused(b, network.now, message_1_of("evil", "b"), None).error.code == (
        "unknown_peer"
    )
    for _ in range(40):
        b.sessions.receive(network.now, message_1_of("a", "b"), None)
    outcomes = b.sessions.take()
    assert sum(isinstance(each, Send) for each in outcomes) == b.limits.sender_burst
    assert b.sessions.half_open == b.limits.half_open_per_peer
    assert len(b.sessions._by_id) == 1 + b.limits.half_open_per_peer
    token = a.hand_over(network.now)
    network.settle()
    assert a.fates[token] is Fate.CONFIRMED
    network.run(200)
    assert b.sessions.half_open == 0


def test_renewal_travels_inside_the_session_where_no_flood_can_stop_it() -> None:
    limits = Limits(rekey_packets=20, sender_rate=0.0, sender_burst=1.0)
    network = connected(limits)
    for _ in range(100):
        token = network.a.hand_over(network.now)
        network.run(0.3)
    network.settle()
    assert network.a.fates[token] is Fate.CONFIRMED
    assert len(network.a.established) > 3


def test_revocation_ends_everything_before_it_returns() -> None:
    network = connected()
    a, b = network.a, network.b
    packet = packet_of(network, "t")
    open_message = max(a.handed)
    a.revoked = True
    a.sessions.end(a.peer.fingerprint)
    assert a.sessions.count() == 0
    assert not a.sessions._by_id
    a.take()
    assert a.fates[open_message] is Fate.UNCONFIRMED
    b.hand_over(network.now)
    for send in b.take():
        only_refused(a, network.now, send.frame, send.context)
    network.run(120)
    assert a.sessions.count() == 0, "its handshakes are refused"
    assert any(isinstance(each.error, RevokedPeerError) for each in a.refused)
    b.sessions.receive(network.now, packet, "t")  # what left before the revocation


@pytest.mark.parametrize(
    "limits",
    [
        Limits(sender_burst=10, total_rate=0.0, total_burst=1),
        Limits(sender_burst=10, half_open=1),
    ],
)
def test_handshakes_of_all_peers_together_are_bounded(limits: Limits) -> None:
    b = Network(9, limits).b
    for _ in range(5):
        b.sessions.receive(0.0, message_1_of("a", "b"), None)
    assert [frame[0] for frame in sends(b)] == [Kind.MESSAGE_2]
    assert b.sessions.half_open == 1
