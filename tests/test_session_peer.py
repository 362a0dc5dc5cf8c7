"""Everything between two devices: which session is used, what waits, and for how long."""

from __future__ import annotations

import pytest

from pqc_iiot import TransportError
from pqc_iiot.session import Ended, Fate, Limits, Report
from pqc_iiot.session.frames import Kind
from session_network import Device, Network, begins

NOW = 1000.0


def connected(limits: Limits | None = None) -> Network:
    """Two devices with a session that A began, at rest and just used."""
    network = Network(40, limits)
    network.a.hand_over(network.now)
    network.settle()
    network.run(0.5)
    network.history.clear()
    return network


def log(network: Network, start: float = NOW) -> list[tuple[str, float]]:
    """What was sent when: messages, control, handshake messages."""
    return [
        ("message" if each.context else Kind(each.frame[0]).name.lower(), round(each.at - start, 3))
        for each in network.history
    ]


def deaf(network: Network, device: Device) -> None:
    """From now on nothing arrives at a device."""
    kid = device.keys.bundle.kid
    network.loses = lambda send: send.kid == kid


# What waits


def test_a_message_waits_for_a_session_for_a_minute_and_is_then_unsent() -> None:
    network = Network(41)
    network.weather.drop = 1.0
    token = network.a.hand_over(NOW)
    network.run(59.9)
    assert network.a.fates == {}
    network.run(0.1)
    assert network.a.fates == {token: Fate.UNSENT}


def test_a_handshake_goes_on_as_long_as_messages_wait_and_not_longer() -> None:
    network = Network(41)
    network.weather.drop = 1.0
    network.a.hand_over(NOW)
    network.run(50)
    network.a.hand_over(network.now)
    network.run(200)
    assert 100 < network.history[-1].at - NOW < 110
    assert network.a.sessions.peers() == []


def test_messages_are_sent_in_the_order_in_which_they_were_handed_over() -> None:
    network = connected()
    network.run(61)
    network.a.hand_over(network.now)
    network.run(0.04)
    assert [what for what, _ in log(network)] == ["packet"], "B is asked first"
    network.a.hand_over(network.now)
    network.settle()
    assert [each.payload for each in network.b.delivered] == [b"a 1", b"a 2", b"a 3"]


def test_to_a_peer_that_does_not_say_what_it_receives_few_trains_are_sent() -> None:
    network = connected(Limits(unconfirmed=2))
    a = network.a
    for _ in range(2):
        a.hand_over(network.now)
        a.tokens += 1  # One that went elsewhere: the next is of another train.
    with pytest.raises(TransportError):
        a.sessions.send(network.now, a.peer, "t", b"", 99)
    assert a.sessions.seal(network.now, a.peer.fingerprint, "t", b"", 99) is None
    network.settle()
    a.hand_over(network.now)
    network.settle()
    assert set(a.fates.values()) == {Fate.CONFIRMED}


def test_what_waited_is_sent_in_few_trains_at_a_time() -> None:
    network = Network(42, Limits(unconfirmed=2))
    for _ in range(5):
        network.a.hand_over(NOW)
        network.a.tokens += 1
    network.settle()
    assert [what for what, _ in log(network) if what in ("message", "packet")] == [
        "message",
        "message",
        "packet",
        "message",
        "message",
        "packet",
        "message",
        "packet",
    ]


# Silence


def test_a_peer_is_asked_before_it_is_sent_to_after_more_than_a_minute_of_silence() -> None:
    for late, first in ((0.0, "message"), (0.1, "packet")):
        network = connected()
        network.now = network.a.session.heard + 60.0 + late
        network.a.hand_over(network.now)
        network.collect()
        assert [what for what, _ in log(network)] == [first]
        network.settle()
        assert set(network.a.fates.values()) == {Fate.CONFIRMED}


def test_a_peer_with_a_question_that_was_heard_a_moment_ago_is_sent_to() -> None:
    network = connected()
    deaf(network, network.b)
    network.a.hand_over(network.now)
    network.run(1.5)
    network.history.clear()
    network.a.hand_over(network.now)
    network.collect()
    assert log(network) == [], "the question is open, and nothing was heard for a second"
    network.b.hand_over(network.now)
    network.run(0.1)
    assert [what for what, _ in log(network)] == ["message", "message"]
    network.a.hand_over(network.now)
    network.collect()
    assert [what for what, _ in log(network)] == ["message"] * 3


def test_after_two_unanswered_questions_a_handshake_is_begun_and_after_four_all_is_given_up() -> (
    None
):
    network = connected()
    deaf(network, network.b)
    start = network.now
    token = network.a.hand_over(start)
    network.run(16.2)
    assert log(network, start) == [
        ("message", 0),
        ("packet", 1.25),
        ("packet", 2.25),
        ("packet", 4.25),
        ("message_1", 4.25),
        ("message_1", 5.25),
        ("message_1", 7.25),
        ("packet", 8.25),
        ("message_1", 11.25),
    ]
    assert network.a.sessions.count() == 1
    network.run(0.1)
    assert network.a.sessions.count() == 0
    assert network.a.fates[token] is Fate.UNCONFIRMED


def test_the_initiator_sends_at_once_also_where_it_has_no_message() -> None:
    network = Network(44)
    network.a.sessions.want(NOW, network.a.peer)
    network.run(0.35)
    assert [what for what, _ in log(network)][4:] == ["packet", "packet"]
    assert network.b.sessions.count() == 1
    assert not network.a.session.asking


# Renewal


@pytest.mark.parametrize(("who", "at"), [("a", 100.0), ("b", 100.0 / 0.9)])
def test_who_began_a_session_renews_it_a_little_earlier(who: str, at: float) -> None:
    network = connected(Limits(rekey_after=100.0, silence=500.0, grace=600.0))
    device = network.devices[who]
    born = device.session.born
    for age, begun in ((at - 0.1, False), (at + 0.1, True)):
        device.hand_over(born + age)
        assert any(map(begins, device.take())) is begun


@pytest.mark.parametrize("sealing", [False, True])
def test_the_packet_of_a_session_that_is_due_begins_its_renewal(sealing: bool) -> None:
    network = connected(Limits(rekey_after=100.0, silence=500.0, grace=600.0))
    a, born = network.a, network.a.session.born
    for age, sent in ((99.0, []), (100.0, [Kind.PACKET])):
        if sealing:
            packet = a.sessions.seal(born + age, a.peer.fingerprint, "t", b"", 99)
            assert packet is not None
        else:
            a.hand_over(born + age)
        assert [each.frame[0] for each in a.take() if begins(each)] == sent


def renewed_in_vain(seconds: int) -> tuple[Network, float]:
    """Two devices for so long after a renewal was due, and when that was: none is answered."""
    network = connected(Limits(rekey_after=100.0, silence=500.0, grace=600.0))
    network.run(100)
    network.loses = begins
    start = network.now
    for _ in range(seconds):
        network.a.hand_over(network.now)
        network.run(1.0)
    return network, start


def test_a_renewal_that_is_not_answered_rests_for_half_a_minute_after_a_minute() -> None:
    network, start = renewed_in_vain(98)
    begun = [round(each.at - start) for each in network.history if each.to == "b" and begins(each)]
    assert begun == [0, 1, 3, 7, 15, 31, 32, 34, 38, 46, 90, 91, 93, 97]
    assert network.a.sessions.count() == 1


def test_a_renewal_in_vain_counts_once_against_the_peers_patience() -> None:
    network, start = renewed_in_vain(70)
    a = network.a
    a.sessions.end(a.peer.fingerprint)
    a.take()
    for late, begun in ((119.0, []), (121.0, [Kind.MESSAGE_1])):
        a.sessions.want(start + late, a.peer)
        assert [each.frame[0] for each in a.take()] == begun


def test_a_session_that_is_too_old_is_closed_and_what_is_sent_then_waits_for_another() -> None:
    network = connected(Limits(rekey_after=100.0, silence=500.0, grace=600.0))
    born = network.a.session.born
    network.run(born + 199.9 - network.now)
    assert network.a.sessions.count() == 1
    network.run(0.2)
    assert (network.a.sessions.count(), network.a.sessions.peers()) == (0, [])
    token = network.a.hand_over(network.now)
    assert network.a.sessions.count() == 0
    network.settle()
    assert network.a.fates[token] is Fate.CONFIRMED


# The end


def test_the_end_tells_what_became_of_everything() -> None:
    network = connected()
    a = network.a
    sent = a.hand_over(network.now)
    network.run(62)
    deaf(network, network.b)
    on_its_way = a.hand_over(network.now)
    network.run(1.5)
    waiting = a.hand_over(network.now)
    a.take()
    own_id = a.session.own_id
    a.sessions.end(a.peer.fingerprint)
    outcomes = a.sessions.take()
    assert [each.session for each in outcomes if isinstance(each, Ended)] == [own_id]
    assert [(each.tokens, each.fate) for each in outcomes if isinstance(each, Report)] == [
        (range(on_its_way, on_its_way + 1), Fate.UNSENT),
        (range(waiting, waiting + 1), Fate.UNSENT),
    ]
    assert a.fates[sent] is Fate.CONFIRMED
    assert (a.sessions._by_id, a.sessions.count()) == ({}, 0)
    while a.sessions.due < float("inf"):
        a.sessions.tick(a.sessions.due)
    assert a.sessions.take() == [], "and nothing ends twice"


# Packets that the caller sends itself


def test_nothing_is_sealed_where_a_message_would_have_to_wait() -> None:
    network = connected()
    a, peer, heard = network.a, network.a.peer, network.a.session.heard
    for late, sealed in ((60.0, True), (60.5, False)):
        packet = a.sessions.seal(heard + late, peer.fingerprint, "t", b"", 99)
        assert (packet is not None) is sealed
        a.session.be_careful()
    a.session.ask(heard)
    for late, sealed in ((0.9, True), (1.0, False)):
        packet = a.sessions.seal(heard + late, peer.fingerprint, "t", b"", 99)
        assert (packet is not None) is sealed, "with a question open"
    a.hand_over(heard + 61)
    network.b.hand_over(heard + 61)
    for each in network.b.take():
        a.session.open_many(heard + 61, ["t"], [each.frame])
    assert a.sessions.seal(heard + 61, peer.fingerprint, "t", b"", 99) is None, "one waits already"


def test_after_one_packet_that_was_looked_at_others_may_go_unasked() -> None:
    network = connected()
    a = network.a
    assert not a.session.at_ease(network.now)
    assert a.sessions.seal(network.now, a.peer.fingerprint, "t", b"", 99) is not None
    assert a.session.at_ease(network.now)
    assert a.sessions.due == network.now + 1.25


def test_who_wants_a_session_with_a_silent_peer_has_it_asked() -> None:
    network = connected()
    a = network.a
    a.sessions.want(a.session.heard + 60.0, a.peer)
    assert a.take() == []
    a.sessions.want(a.session.heard + 61.0, a.peer)
    assert [(each.context, len(each.frame)) for each in a.take()] == [(None, 25)]
