"""The rules of sessions one by one: lost messages, both at once, reboots, renewal, idleness,
replays, revocation, floods."""

from __future__ import annotations

import pytest

from pqc_iiot import (
    InvalidInputError,
    ReplayError,
    StateError,
    TransportError,
)
from pqc_iiot._core import HandshakeInitiator
from pqc_iiot.session import Fate, Limits, Refused, Send, frames
from pqc_iiot.session.frames import Kind
from session_network import Device, Network, as_peer, keys


def connected(limits: Limits | None = None) -> Network:
    """Two devices with a session, used both ways."""
    network = Network(7, limits)
    for device in (network.a, network.b):
        device.hand_over(network.now)
        network.settle()
    network.run(1.0)
    assert network.a.sessions.count() == network.b.sessions.count() == 1
    return network


def state(device: Device) -> object:
    """Everything that something forged must not change."""
    links = device.sessions._links.values()
    return [
        (
            link.peer.name,
            [
                (c.own_id, c.session.sealed, c.session.opened, c.session.next_expected)
                for c in (link.current, link._candidate, *link._old)
                if c is not None
            ],
            (h := link.handshakes.initiating) and (h.own_id, h.taken),
            list(link.handshakes.responding),
            len(link._waiting),
        )
        for link in links
    ]


def only_refused(device: Device, now: float, frame: bytes, context: str | None) -> Refused:
    """`device` refuses a frame, says nothing to the network, and is as it was."""
    before = state(device)
    device.sessions.receive(now, frame, context)
    (outcome,) = device.sessions.take()
    assert isinstance(outcome, Refused)
    assert state(device) == before
    return outcome


def test_the_first_message_arrives_after_two_and_a_half_round_trips_and_3760_bytes() -> None:
    network = Network(1)
    token = network.a.hand_over(network.now)
    start, delay = network.now, network.weather.delay
    network.collect()
    while not network.b.delivered:
        network.step(start + 60)
    assert network.now - start == pytest.approx(5 * delay)
    handshake = [f.frame for f in network.history if f.frame[0] != Kind.PACKET]
    assert [frame[0] for frame in handshake] == [2, 3, 4, 5]
    assert sum(map(len, handshake)) <= 3760
    network.settle()
    assert network.a.fates[token] is Fate.CONFIRMED
    packet = next(f.frame for f in network.history if f.context == "t")
    assert len(packet) - len(network.a.handed[token][1]) == 24


@pytest.mark.parametrize("lost", [Kind.MESSAGE_1, Kind.MESSAGE_2, Kind.MESSAGE_3, Kind.MESSAGE_4])
@pytest.mark.parametrize("times", [1, 3])
def test_a_lost_handshake_message_is_made_good(
    monkeypatch: pytest.MonkeyPatch, lost: Kind, times: int
) -> None:
    network = Network(2)
    passing = network._pass
    left = [times]

    def lossy(to: str, send: Send) -> None:
        if send.frame[0] == lost and left[0]:
            left[0] -= 1
            return
        passing(to, send)

    monkeypatch.setattr(network, "_pass", lossy)
    tokens = [network.a.hand_over(network.now), network.b.hand_over(network.now)]
    assert network.settle() < 20
    assert (network.a.fates[tokens[0]], network.b.fates[tokens[1]]) == (Fate.CONFIRMED,) * 2
    assert left == [0]


def test_both_at_once_end_in_one_session_that_the_lower_key_id_began() -> None:
    network = Network(3)
    network.a.hand_over(network.now)
    network.b.hand_over(network.now)
    network.settle()
    network.run(60)
    assert [e.began for e in network.a.established] == [True]
    assert [e.began for e in network.b.established] == [False]
    assert len(network.a.delivered) == len(network.b.delivered) == 1
    answers = [f.to for f in network.history if f.frame[0] == Kind.MESSAGE_2]
    assert set(answers) == {"a"}, "the lower key id answers nobody meanwhile"


def sends(device: Device) -> list[bytes]:
    """The frames that a device wants to send now."""
    return [send.frame for send in device.take()]


def test_what_comes_again_is_answered_the_same_again_and_costs_nothing() -> None:
    network = Network(8)
    a, b, now = network.a, network.b, network.now
    a.hand_over(now)
    (message_1,) = sends(a)
    answers = []
    for _ in range(2):
        b.sessions.receive(now, message_1, None)
        answers += sends(b)
    message_2 = answers[0]
    assert answers == [message_2] * 2
    assert b.sessions.half_open == 1
    for answer in answers:
        a.sessions.receive(now, answer, None)
        answers += sends(a)
    message_3 = answers[2]
    assert answers[2:] == [message_3] * 2
    for _ in range(2):
        b.sessions.receive(now, message_3, None)
        answers += sends(b)
    message_4 = answers[4]
    assert answers[4:] == [message_4] * 2
    a.sessions.receive(now, message_4, None)
    packets = sends(a)
    assert [packet[0] for packet in packets] == [Kind.PACKET]
    a.sessions.receive(now, message_4, None)
    assert [packet[0] for packet in sends(a)] == [Kind.PACKET], "so that the peer hears of it"
    b.sessions.receive(now, packets[0], "t")
    sends(b)
    assert len(b.established) == 1
    only_refused(b, now, message_3[:-1] + b"\0", None)


def test_a_gap_is_reported_as_lost() -> None:
    network = connected()
    lost = network.a.hand_over(network.now)
    network.a.take()
    later = network.a.hand_over(network.now)
    network.settle()
    assert (network.a.fates[lost], network.a.fates[later]) == (Fate.LOST, Fate.CONFIRMED)


def test_a_renewed_session_is_taken_into_use_by_both_without_any_message() -> None:
    network = connected(Limits(rekey_after=100.0))
    network.run(150)
    network.a.hand_over(network.now)
    network.run(5)
    assert len(network.a.established) == len(network.b.established) == 2


def test_a_peer_that_rebooted_is_found_out_and_met_again() -> None:
    network = connected()
    network.b.reboot()
    lost = network.a.hand_over(network.now)
    start = network.now
    network.run(2.0)
    waiting = network.a.hand_over(network.now)
    network.settle()
    assert network.now - start < 30
    assert network.a.fates[lost] is Fate.UNCONFIRMED
    assert network.a.fates[waiting] is Fate.CONFIRMED


def test_a_peer_that_rebooted_and_speaks_first_replaces_the_session() -> None:
    network = connected()
    network.b.reboot()
    token = network.b.hand_over(network.now)
    assert network.settle() < 2
    assert network.b.fates[token] is Fate.CONFIRMED
    token = network.a.hand_over(network.now)
    network.settle()
    assert network.a.fates[token] is Fate.CONFIRMED


def test_sessions_are_renewed_under_load_and_lose_nothing() -> None:
    network = connected(Limits(rekey_packets=40))
    for _ in range(300):
        network.a.hand_over(network.now)
        network.b.hand_over(network.now)
        network.run(0.02)
    network.settle()
    network.run(100)
    for one in (network.a, network.b):
        assert set(one.fates.values()) == {Fate.CONFIRMED}
        assert len(one.delivered) == 301
        assert len(one.established) > 6
        (link,) = one.sessions._links.values()
        assert link._old == [], "what was replaced is wiped"


def test_the_core_never_seals_beyond_its_limit_whatever_the_knobs_say() -> None:
    with pytest.raises(Exception, match="rekey limits"):
        Limits(rekey_packets=(1 << 20) + 1)


@pytest.mark.parametrize("days", [0.01, 0.9, 1.5, 30])
def test_after_days_of_idleness_the_next_message_arrives(days: float) -> None:
    network = connected()
    network.run(days * 86_400)
    token = network.a.hand_over(network.now)
    assert network.settle() < 5
    assert network.a.fates[token] is Fate.CONFIRMED


def test_keys_of_a_session_that_nobody_uses_are_wiped_in_the_end() -> None:
    network = connected()
    network.run(3 * 86_400)
    for device in (network.a, network.b):
        assert not device.sessions._by_id
        assert not device.sessions._links


def test_after_days_a_peer_that_rebooted_meanwhile_costs_no_message() -> None:
    network = connected()
    network.run(86_400 / 2)
    network.b.reboot()
    token = network.a.hand_over(network.now)
    assert network.settle() < 20
    assert network.a.fates[token] is Fate.CONFIRMED


def packet_of(network: Network, context: str) -> bytes:
    network.a.hand_over(network.now, context)
    return network.a.take()[-1].frame


def message_1_of(claimed: str, to: str) -> bytes:
    caller, called = keys(claimed).bundle, keys(to).bundle
    handshake = HandshakeInitiator(
        called.suite.edhoc, b"evil", frames.credential(caller), frames.credential(called)
    )
    return frames.make(Kind.MESSAGE_1, caller.kid, handshake.message_1)


def test_a_peer_that_is_away_costs_bounded_memory_and_every_message_is_reported() -> None:
    network = Network(4, Limits(waiting=10))
    network.weather.drop = 1.0
    for _ in range(10):
        network.a.hand_over(network.now)
    with pytest.raises(TransportError):
        network.a.sessions.send(network.now, network.a.peer, "t", b"", 99)
    network.settle()
    assert set(network.a.fates.values()) == {Fate.UNSENT}
    network.run(600)
    assert not network.a.sessions._links
    assert not network.a.sessions._by_id


@pytest.mark.parametrize("suites", [(1, 2), (2, 1), (3, 4), (4, 3), (1, 5), (5, 1)])
def test_devices_of_different_suites_meet(suites: tuple[int, int]) -> None:
    network = Network(6, suites=suites)
    for device in (network.a, network.b):
        device.hand_over(network.now)
        network.settle()
        assert list(device.fates.values()) == [Fate.CONFIRMED]


def test_the_session_exports_the_same_secret_on_both_sides() -> None:
    network = connected()
    tags = set()
    for device in (network.a, network.b):
        (link,) = device.sessions._links.values()
        assert link.current is not None
        tags.add(link.current.session.export(40000, b"x", 32).mac(b"y"))
    assert len(tags) == 1
    assert as_peer("a").fingerprint == keys("a").bundle.fingerprint


def test_batches_are_the_same_as_one_by_one_with_an_error_for_each_that_fails() -> None:
    network = connected()
    one, other = (
        next(iter(device.sessions._links.values())).current for device in (network.a, network.b)
    )
    assert one is not None
    assert other is not None
    payloads = [b"x", b"", b"z" * 5000]
    packets = one.session.seal_many(b"t", payloads)
    packets += one.session.seal_many([b"t", b"u"], [b"1", b"2"])
    frames_ = [each for each in packets if isinstance(each, bytes)]
    assert len(frames_) == 5
    opened = other.session.open_many(b"t", [*frames_[:3], frames_[0]])
    assert opened[:3] == payloads
    assert isinstance(opened[3], ReplayError)
    opened = other.session.open_many([b"t", b"t"], frames_[3:])
    assert opened[0] == b"1"
    assert opened[1] is None, "not genuine"
    with pytest.raises(InvalidInputError):
        one.session.seal_many([b"t"], payloads)
    with pytest.raises(TypeError):
        one.session.seal_many(b"t", ["text"])  # type: ignore[list-item]
    one.session.close()
    with pytest.raises(StateError):
        one.session.seal(b"t", b"")


def test_a_peer_that_reboots_in_mid_handshake_is_met_again_soon() -> None:
    network = Network(10)
    token = network.a.hand_over(network.now)
    network.collect()
    while not any(f.frame[0] == Kind.MESSAGE_2 for f in network.flights):
        network.step(network.now + 60)
    network.b.reboot()
    assert network.settle() < 12
    assert network.a.fates[token] is Fate.CONFIRMED


def test_replaced_sessions_that_still_receive_are_few() -> None:
    network = connected(Limits(rekey_packets=4))
    for _ in range(60):
        network.a.hand_over(network.now)
        network.run(0.3)
        for device in (network.a, network.b):
            assert len(device.sessions._by_id) <= 6
    network.settle()
    assert set(network.a.fates.values()) == {Fate.CONFIRMED}


def test_with_a_window_a_gap_is_reported_after_a_while() -> None:
    network = connected(Limits(window=4096))
    lost = network.a.hand_over(network.now)
    network.a.take()
    network.a.hand_over(network.now)
    assert 55 < network.settle() < 70
    assert network.a.fates[lost] is Fate.UNCONFIRMED
