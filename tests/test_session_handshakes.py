"""Handshakes with one peer: what is repeated when, what is forgotten, what a stranger's or a
second message changes."""

from __future__ import annotations

from pqc_iiot import AuthenticationError, InvalidFrameError
from pqc_iiot.session import Limits, frames
from pqc_iiot.session.frames import Kind
from session_ends import Caller
from session_network import Network, as_peer, begins


def sent(network: Network, start: float, *kinds: Kind) -> list[tuple[Kind, float]]:
    """Which frames of these kinds were sent, and when."""
    return [
        (Kind(each.frame[0]), round(each.at - start, 3))
        for each in network.history
        if each.frame[0] in kinds
    ]


def test_message_1_is_repeated_ever_more_slowly_and_after_four_times_another_one_is_sent() -> None:
    network = Network(20)
    network.weather.drop = 1.0
    start = network.now
    network.a.hand_over(start)
    network.run(59)
    times = [0, 1, 3, 7, 15, 31, 32, 34, 38, 46]
    assert sent(network, start, *Kind) == [(Kind.MESSAGE_1, at) for at in times]
    messages = [each.frame for each in network.history]
    assert len(set(messages[:5])) == len(set(messages[5:])) == 1
    assert messages[0] != messages[5]
    assert len(network.a.sessions._by_id) == 1


def test_no_repetition_waits_longer_than_half_a_minute() -> None:
    network = Network(20, Limits(attempts=9, give_up=600.0))
    network.weather.drop = 1.0
    start = network.now
    network.a.hand_over(start)
    network.run(130)
    times = [0, 1, 3, 7, 15, 31, 61, 91, 121]
    assert sent(network, start, *Kind) == [(Kind.MESSAGE_1, at) for at in times]


def test_message_3_is_repeated_twice_and_then_another_handshake_is_begun() -> None:
    network = Network(21)
    network.loses = lambda send: send.frame[0] == Kind.MESSAGE_3
    start = network.now
    network.a.hand_over(start)
    network.run(7.5)
    assert sent(network, start, Kind.MESSAGE_1, Kind.MESSAGE_3) == [
        (Kind.MESSAGE_1, 0.0),
        (Kind.MESSAGE_3, 0.1),
        (Kind.MESSAGE_3, 1.1),
        (Kind.MESSAGE_3, 3.1),
        (Kind.MESSAGE_1, 7.1),
        (Kind.MESSAGE_3, 7.2),
    ]
    network.loses = lambda _: False
    network.settle()
    assert len(network.a.established) == len(network.b.established) == 1


def test_a_renewal_is_begun_in_turns_inside_the_session_and_outside_of_it() -> None:
    network = Network(22, Limits(rekey_after=100.0))
    for _ in range(2):
        network.a.hand_over(network.now)
        network.run(50)
    network.history.clear()
    network.loses = begins
    network.run(1)
    start = network.now
    network.a.hand_over(start)
    network.run(20)
    found = [(Kind(each.frame[0]), each.at - start) for each in network.history if begins(each)]
    inside, outside = Kind.PACKET, Kind.MESSAGE_1
    assert found == [(inside, 0), (outside, 1), (inside, 3), (outside, 7), (inside, 15)]


def test_a_second_message_2_changes_nothing() -> None:
    network = Network(23)
    a, b, now = network.a, network.b, network.now
    a.hand_over(now)
    (message_1,) = [each.frame for each in a.take()]
    (message_2,) = b.answers(now, message_1)
    b.reboot()
    (another,) = b.answers(now, message_1)
    (message_3,) = a.answers(now, message_2)
    assert a.answers(now, another) == []
    assert a.answers(now, message_2) == [message_3]
    assert a.refused == []


def test_what_is_not_a_message_1_leaves_nothing_behind() -> None:
    b = Network(24).b
    frame = frames.make(Kind.MESSAGE_1, as_peer("a").bundle.kid, b"not EDHOC")
    assert b.answers(0.0, frame) == []
    (refused,) = b.refused
    assert isinstance(refused.error, InvalidFrameError)
    assert (b.sessions.half_open, b.sessions._by_id, b.sessions.peers()) == (0, {}, [])


def test_of_more_than_four_handshakes_of_a_peer_the_oldest_are_forgotten() -> None:
    b = Network(25, Limits(sender_burst=100.0)).b
    callers = [Caller() for _ in range(6)]
    answers = [b.answers(0.0, caller.message_1)[0] for caller in callers]
    assert b.sessions.half_open == len(b.sessions._by_id) == 4
    for caller, answer in zip(callers[:2], answers[:2], strict=True):
        assert b.answers(0.0, caller.message_3(answer)) == []
    assert [each.error.code for each in b.refused] == ["invalid_frame"] * 2
    for caller, answer in zip(callers[2:], answers[2:], strict=True):
        (message_4,) = b.answers(0.0, caller.message_3(answer))
        assert message_4[0] == Kind.MESSAGE_4
    assert b.sessions.half_open == 0


def test_a_handshake_that_is_not_finished_is_forgotten_after_a_minute() -> None:
    b = Network(26).b
    assert len(b.answers(0.0, Caller().message_1)) == 1
    assert b.sessions.due == 60.0
    b.sessions.tick(59.9)
    assert b.sessions.half_open == len(b.sessions._by_id) == 1
    b.sessions.tick(60.0)
    assert (b.sessions.half_open, b.sessions._by_id, b.sessions.peers()) == (0, {}, [])


def test_message_4_comes_again_for_the_same_message_3_alone() -> None:
    b = Network(27).b
    caller = Caller()
    message_3 = caller.message_3(*b.answers(0.0, caller.message_1))
    (message_4,) = b.answers(0.0, message_3)
    assert b.answers(0.0, message_3) == [message_4]
    assert b.answers(0.0, message_3[:-1] + b"\0") == []
    assert isinstance(b.refused[-1].error, AuthenticationError)


def test_who_answers_with_the_higher_key_id_drops_its_own_handshake_once_the_other_is_proved() -> (
    None
):
    b = Network(28).b
    b.hand_over(0.0)
    caller = Caller()
    (message_1,) = [each.frame for each in b.take()]
    (message_2,) = b.answers(0.0, caller.message_1)
    own, _ = b.sessions._by_id
    b.sessions.tick(1.0)
    assert [each.frame for each in b.take()] == [message_1], "not proved yet"
    b.answers(1.0, caller.message_3(message_2))
    assert own not in b.sessions._by_id
    b.sessions.tick(60.0)
    assert Kind.MESSAGE_1 not in [each.frame[0] for each in b.take()]


def test_who_answers_with_the_lower_key_id_goes_on_with_its_own_handshake() -> None:
    network = Network(29)
    a, b, now = network.a, network.b, network.now
    b.hand_over(now)
    (message_2,) = a.answers(now, b.take()[0].frame)
    a.hand_over(now)
    (message_1,) = [each.frame for each in a.take()]
    (message_3,) = b.answers(now, message_2)
    a.answers(now, message_3)
    a.sessions.tick(now + 1)
    assert [each.frame for each in a.take()] == [message_1]


def test_the_end_of_everything_with_a_peer_frees_its_handshakes() -> None:
    b = Network(30).b
    b.hand_over(0.0)
    b.answers(0.0, Caller().message_1)
    assert len(b.sessions._by_id) == 2
    b.sessions.end(as_peer("a").fingerprint)
    assert (b.sessions.half_open, b.sessions._by_id, b.sessions.peers()) == (0, {}, [])
