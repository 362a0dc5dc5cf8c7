"""Which of several sessions with a peer is used, and for how long the others receive."""

from __future__ import annotations

import pytest

from pqc_iiot._core import Session
from pqc_iiot.session import Ended, Limits
from pqc_iiot.session.frames import Kind
from session_ends import Caller
from session_network import Device, Network

NOW = 1000.0


def called(device: Device, now: float) -> Session:
    """A's end of a session that B has answered, and of which it has seen no packet yet."""
    caller = Caller()
    (message_2,) = device.answers(now, caller.message_1)
    (message_4,) = device.answers(now, caller.message_3(message_2))
    return caller.session(message_4)


def test_a_session_that_was_answered_is_used_from_the_first_packet_on() -> None:
    b = Network(43).b
    session = called(b, NOW)
    b.hand_over(NOW)
    assert b.take() == []
    assert b.established == []
    (packet,) = b.answers(NOW, session.seal(b"\x41t", b"a"), "t")
    assert session.open(b"\x41t", packet) == b"b 1", "what waited"
    assert [each.began for each in b.established] == [False]


@pytest.mark.parametrize("waiting", ["a message", "somebody"])
@pytest.mark.parametrize(("answer_within", "wait"), [(1.0, 8.0), (0.5, 4.0)])
def test_who_has_answered_waits_for_a_while_before_it_begins_a_handshake_itself(
    answer_within: float, wait: float, waiting: str
) -> None:
    b = Network(43, Limits(answer_within=answer_within)).b
    called(b, NOW)
    if waiting == "a message":
        b.hand_over(NOW + 1)
    else:
        b.sessions.want(NOW + 1, b.peer)
    assert b.sessions.due == NOW + wait
    b.sessions.tick(NOW + wait - 0.1)
    assert b.take() == []
    b.sessions.tick(NOW + wait)
    assert [each.frame[0] for each in b.take()] == [Kind.MESSAGE_1]


def test_a_session_that_nobody_wants_any_more_is_not_begun() -> None:
    b = Network(43).b
    called(b, NOW)
    b.sessions.want(NOW, b.peer)
    b.sessions.tick(NOW + 60)
    assert b.take() == []
    assert b.sessions.peers() == []


def test_after_a_sleep_what_was_wanted_before_it_causes_nothing() -> None:
    b = Network(43).b
    b.sessions.want(NOW, b.peer)
    b.take()
    called(b, NOW + 1)
    b.sessions.tick(NOW + 60.5)
    assert b.take() == []
    assert b.sessions.due == NOW + 61


def test_a_session_that_was_answered_and_is_not_used_is_closed_after_a_minute() -> None:
    b = Network(43).b
    caller = Caller()
    (message_2,) = b.answers(NOW, caller.message_1)
    b.answers(NOW + 1, caller.message_3(message_2))
    b.sessions.tick(NOW + 60)
    (of_b,) = b.sessions._by_id
    assert b.sessions.due == NOW + 61
    b.sessions.tick(NOW + 61)
    assert [each.session for each in b.sessions.take() if isinstance(each, Ended)] == [of_b]
    assert (b.sessions._by_id, b.sessions.peers()) == ({}, [])


def test_of_two_sessions_that_were_answered_the_later_one_remains() -> None:
    b = Network(43).b
    called(b, NOW)
    (first,) = b.sessions._by_id
    session = called(b, NOW)
    assert len(b.sessions._by_id) == 1
    assert first not in b.sessions._by_id
    b.answers(NOW, session.seal(b"\x41t", b"a"), "t")
    assert [each.payload for each in b.delivered] == [b"a"]


def test_a_few_sessions_that_were_replaced_still_receive() -> None:
    b = Network(45, Limits(sender_burst=100.0)).b
    sessions = [called_and_used(b) for _ in range(5)]
    b.delivered.clear()
    for number, session in enumerate(sessions):
        b.answers(NOW, session.seal(b"\x41t", b"%d" % number), "t")
    assert [each.payload for each in b.delivered] == [b"1", b"2", b"3", b"4"]
    assert [each.error.code for each in b.refused] == ["invalid_frame"]
    assert len(b.sessions._by_id) == 4


def called_and_used(b: Device) -> Session:
    """A's end of a session that B has seen a packet of."""
    session = called(b, NOW)
    b.answers(NOW, session.seal(b"\x41t", b"first"), "t")
    return session


def test_a_replaced_session_is_closed_90_seconds_after_its_last_packet() -> None:
    b = Network(45).b
    session = called_and_used(b)
    (old,) = b.sessions._by_id
    called_and_used(b)
    b.sessions.tick(NOW + 10)
    b.answers(NOW + 10, session.seal(b"\x41t", b"late"), "t")
    b.sessions.tick(NOW + 90)
    assert b.sessions.due == NOW + 100
    b.sessions.take()
    b.sessions.tick(NOW + 100)
    assert [each.session for each in b.sessions.take() if isinstance(each, Ended)] == [old]
    assert old not in b.sessions._by_id


def test_what_arrived_on_a_replaced_session_is_told_in_time_too() -> None:
    b = Network(45).b
    session = called_and_used(b)
    called_and_used(b)
    b.sessions.tick(NOW + 10)
    b.take()
    assert b.answers(NOW + 10, session.seal(b"\x41t", b"late"), "t") == []
    assert b.sessions.due == NOW + 10.25
    b.sessions.tick(NOW + 10.25)
    assert [each.frame[0] for each in b.take()] == [Kind.PACKET]


def test_somebody_must_look_again_before_a_replaced_session_is_used_once_more() -> None:
    b = Network(45).b
    called_and_used(b)
    first = b.session
    b.hand_over(NOW)
    b.take()
    first.be_at_ease(NOW)
    called_and_used(b)
    assert b.session is not first
    assert not first.at_ease(NOW)
