"""Sessions of a node at the edges of its rules: sizes, tokens, order, and what its log keeps."""

from __future__ import annotations

import pytest

from devices import Pair, events, refused
from pqc_iiot import InvalidInputError, Message, PqcIiotError, ReplayError, UnknownPeerError
from pqc_iiot.session import Limits, Send
from test_sessions import NOW, pump


@pytest.fixture
def ready(pair: Pair) -> Pair:
    """Two devices with a session that both use."""
    pair.sensor.sessions.send(NOW, b"first", to="plc", context="t")
    pump(pair.sensor, pair.plc)
    return pair


def test_every_message_has_a_token_of_its_own(ready: Pair) -> None:
    sessions = ready.sensor.sessions
    tokens = [sessions.send(NOW, b"x", to="plc", context="t") for _ in range(3)]
    for _ in range(3):
        sealed = sessions.seal(NOW, b"x", to="plc", context="t")
        assert sealed is not None
        tokens.append(sealed[1])
    assert tokens == [2, 3, 4, 5, 6, 7]  # one after the other: a train of them costs as one


def test_a_packet_of_exactly_the_largest_size_is_made_and_none_above(ready: Pair) -> None:
    largest = ready.sensor.policy.max_payload
    sealed = ready.sensor.sessions.seal(NOW, bytes(largest), to="plc", context="t")
    assert sealed is not None
    (message,) = ready.plc.sessions.receive_many(NOW, ["t"], [sealed[0]])
    assert isinstance(message, Message)
    assert len(message.payload) == largest
    with pytest.raises(InvalidInputError):
        ready.sensor.sessions.seal(NOW, bytes(largest + 1), to="plc", context="t")


def test_a_train_of_packets_has_a_result_for_each_in_order(ready: Pair) -> None:
    packets = []
    for number in range(4):
        sealed = ready.sensor.sessions.seal(NOW, b"%d" % number, to="plc", context="t")
        assert sealed is not None
        packets.append(sealed[0])
    forged = packets[1][:-1] + bytes((packets[1][-1] ^ 1,))
    train = [packets[0], forged, packets[2], packets[0], packets[3], b"\x01unknown" * 4]
    results = ready.plc.sessions.receive_many(NOW, ["t"] * len(train), train)
    assert [each.payload if isinstance(each, Message) else each.code for each in results] == [
        b"0", "authentication_failed", b"2", "replay", b"3", "invalid_frame",
    ]  # fmt: skip


def test_what_a_session_was_and_what_it_lost_is_in_the_log(ready: Pair) -> None:
    ready.sensor.sessions.send(NOW, b"unheard", to="plc", context="t")
    (packet,) = (each for each in ready.sensor.sessions.take() if isinstance(each, Send))
    before = len(events(ready.sensor))
    ready.sensor.peers.revoke("plc")
    ready.sensor.sessions.take()
    kept = {record.event: record for record in events(ready.sensor)[before:]}
    assert kept["session_ended"].peer == ready.plc.bundle.fingerprint.hex()
    assert kept["session_ended"].detail["name"] == "plc"
    assert kept["messages_lost"].detail["fate"] == "unconfirmed"
    assert len(packet.frame) > 24


def test_a_replayed_frame_leaves_the_last_number_in_the_log(pair: Pair) -> None:
    first, second = pair.frame(b"1"), pair.frame(b"2")
    pair.plc.open(second, context="line1/temp")
    with refused(pair.plc, ReplayError, "refused_replay"):
        pair.plc.open(first, context="line1/temp")
    (record,) = events(pair.plc)[-1:]
    assert (record.detail["sequence"], record.detail["last_sequence"]) == (1, 2)


def test_a_closed_node_does_nothing_at_a_tick(ready: Pair) -> None:
    ready.plc.close()
    with pytest.raises(PqcIiotError):
        ready.plc.sessions.tick(NOW)
    with pytest.raises(PqcIiotError):
        ready.plc.sessions.receive_many(NOW, ["t"], [b"\x01" * 30])


def test_what_is_due_is_done_at_exactly_that_time(ready: Pair) -> None:
    ready.sensor.sessions.send(NOW, b"x", to="plc", context="t")
    (packet,) = (each for each in ready.sensor.sessions.take() if isinstance(each, Send))
    ready.plc.sessions.receive(NOW, packet.frame, "t")
    ready.plc.sessions.take()
    for node in (ready.plc, ready.sensor):  # one tells what came, the other asks
        sent: list[Send] = []
        while not sent:
            due = node.sessions.due
            node.sessions.tick(due)
            assert node.sessions.due > due
            sent = [each for each in node.sessions.take() if isinstance(each, Send)]
        assert [each.context for each in sent] == [None]


def test_the_receiver_tells_after_as_many_packets_as_agreed_each_time(ready: Pair) -> None:
    every, sessions = Limits().confirm_every, ready.sensor.sessions
    ready.plc.sessions.tick(ready.plc.sessions.due)
    ready.plc.sessions.take()
    told = []
    for number in range(1, 3 * every + 1):
        sealed = sessions.seal(NOW, b"x", to="plc", context="t")
        assert sealed is not None
        ready.plc.sessions.receive(NOW, sealed[0], "t")
        if any(isinstance(each, Send) for each in ready.plc.sessions.take()):
            told.append(number)
    assert told == [every, 2 * every, 3 * every]


def test_a_refusal_to_send_names_the_transport_if_there_is_one(pair: Pair) -> None:
    for transport in ("", "mqtt"):
        with pytest.raises(UnknownPeerError):
            pair.sensor.seal(b"x", to="nobody", transport=transport)
        assert events(pair.sensor)[-1].detail.get("transport", "") == transport
