"""Sessions of nodes: trust and policy around them, and what they leave in the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import pqc
from devices import Pair, events, introduce, make
from pqc_iiot import InvalidInputError, Message, Node, Policy, StateError, UnknownPeerError
from pqc_iiot.session import Ended, Fate, Report, Send
from pqc_iiot.session.frames import Kind
from pqc_iiot.sessions import SessionStatus

NOW = 100.0


def pump(one: Node, other: Node, now: float = NOW) -> list[object]:
    """Carries frames back and forth until nobody has any; everything else that came."""
    came: list[object] = []
    moving = True
    while moving:
        moving = False
        for node, to in ((one, other), (other, one)):
            for each in node.sessions.take():
                if isinstance(each, Send):
                    moving = True
                    to.sessions.receive(now, each.frame, each.context)
                else:
                    came.append(each)
    return came


def test_messages_go_through_a_session_that_sets_itself_up(pair: Pair) -> None:
    session = pair.sensor.session("plc")
    token = session.send(NOW, b"21.5", context="line1/temp")
    assert not session.ready
    came = pump(pair.sensor, pair.plc)
    (message,) = (each for each in came if isinstance(each, Message))
    assert message[:4] == ("sensor", 0, b"21.5", "line1/temp")
    assert message.fingerprint == pair.sensor.bundle.fingerprint
    assert len(message.session) == 4
    assert session.ready
    for node in (pair.sensor, pair.plc):
        assert (node.sessions.status().ready, node.sessions.status().half_open) == (1, 0)
    pair.plc.sessions.tick(NOW + 1)
    assert Report(range(token, token + 1), Fate.CONFIRMED, "plc") in pump(pair.sensor, pair.plc)


def test_revoking_ends_the_session_both_ways_before_it_returns(pair: Pair) -> None:
    pair.sensor.sessions.send(NOW, b"1", to="plc", context="t")
    pump(pair.sensor, pair.plc)
    pair.sensor.sessions.send(NOW, b"2", to="plc", context="t")
    (packet,) = (each for each in pair.sensor.sessions.take() if isinstance(each, Send))
    pair.plc.peers.revoke("sensor")
    assert pair.plc.sessions.status().known == 0
    pair.plc.sessions.receive(NOW, packet.frame, packet.context)
    outcomes = pair.plc.sessions.take()
    assert not any(isinstance(each, Message) for each in outcomes)
    assert any(isinstance(each, Ended) for each in outcomes)
    pair.sensor.sessions.tick(NOW + 2000)
    pair.sensor.sessions.tick(NOW + 2001)
    pump(pair.sensor, pair.plc)
    assert pair.plc.sessions.status().known == 0


def test_a_policy_that_forbids_the_suite_ends_the_session(pair: Pair) -> None:
    pair.sensor.sessions.send(NOW, b"1", to="plc", context="t")
    pump(pair.sensor, pair.plc)
    pair.plc.policy = Policy(suites="cnsa2")
    assert pair.plc.sessions.status().known == 0


def test_strangers_are_refused_and_leave_one_event(pair: Pair, tmp_path: Path) -> None:
    with make(tmp_path, "stranger") as stranger:
        stranger.peers.add_approved(pair.plc.bundle)
        stranger.sessions.send(NOW, b"1", to="plc", context="t")
        (first,) = (each for each in stranger.sessions.take() if isinstance(each, Send))
    assert first.frame[0] == Kind.MESSAGE_1
    before = len(events(pair.plc))
    pair.plc.sessions.receive(NOW, first.frame, None)
    pair.plc.sessions.take()
    (event,) = events(pair.plc)[before:]
    assert event.reason == "unknown_peer"


def test_a_restart_forgets_sessions_and_old_packets_never_open_again(pair: Pair) -> None:
    pair.sensor.sessions.send(NOW, b"1", to="plc", context="t")
    pump(pair.sensor, pair.plc)
    pair.sensor.sessions.send(NOW, b"2", to="plc", context="t")
    (packet,) = (each for each in pair.sensor.sessions.take() if isinstance(each, Send))
    pair.reopen()
    pair.plc.sessions.receive(NOW, packet.frame, packet.context)
    assert not any(isinstance(each, Message) for each in pair.plc.sessions.take())


def test_what_must_not_be_sent_is_refused_at_once(pair: Pair) -> None:
    with pytest.raises(UnknownPeerError):
        pair.sensor.sessions.send(NOW, b"1", to="nobody", context="t")
    with pytest.raises(InvalidInputError):
        pair.sensor.sessions.send(
            NOW, bytes(pair.sensor.policy.max_payload + 1), to="plc", context="t"
        )
    pair.sensor.close()
    with pytest.raises(StateError):
        pair.sensor.sessions.send(NOW, b"1", to="plc", context="t")


def test_a_peer_with_new_keys_gets_a_new_session(pair: Pair) -> None:
    pair.sensor.sessions.send(NOW, b"1", to="plc", context="t")
    pump(pair.sensor, pair.plc)
    pair.sensor.peers.add(pair.plc.rotate())
    assert pair.sensor.sessions.status().known == 0
    pair.sensor.sessions.send(NOW, b"2", to="plc", context="t")
    came = pump(pair.sensor, pair.plc)
    assert [each.payload for each in came if isinstance(each, Message)] == [b"2"]


@pytest.mark.parametrize("suite", [2, 5])
def test_devices_of_other_suites(tmp_path: Path, suite: int) -> None:
    with make(tmp_path, "a") as a, make(tmp_path, "b", suite) as b:
        introduce(a, b)
        a.sessions.send(NOW, b"x", to="b", context="t")
        assert any(isinstance(each, Message) for each in pump(a, b))


def test_what_was_delivered_and_not_taken_before_a_revocation_is_not_handed_over(
    pair: Pair,
) -> None:
    pair.sensor.sessions.send(NOW, b"1", to="plc", context="t")
    pump(pair.sensor, pair.plc)
    pair.sensor.sessions.send(NOW, b"2", to="plc", context="t")
    (packet,) = (each for each in pair.sensor.sessions.take() if isinstance(each, Send))
    pair.plc.sessions.receive(NOW, packet.frame, packet.context)
    pair.plc.peers.revoke("sensor")
    assert not any(isinstance(each, Message) for each in pair.plc.sessions.take())


def test_status_counts_sessions(pair: Pair) -> None:
    assert pair.plc.status().sessions == SessionStatus(0, 0, 0)
    pair.sensor.sessions.send(NOW, b"1", to="plc", context="t")
    assert pair.sensor.status().sessions == SessionStatus(0, 1, 0)
    pump(pair.sensor, pair.plc)
    assert pair.plc.status().sessions == SessionStatus(1, 1, 0)


def test_inspect_explains_packets_and_handshake_messages(pair: Pair) -> None:
    pair.sensor.sessions.send(NOW, b"21.5", to="plc", context="t")
    explained = {}
    for _ in range(6):
        for node, to in ((pair.sensor, pair.plc), (pair.plc, pair.sensor)):
            for each in node.sessions.take():
                if isinstance(each, Send):
                    for data in (each.frame, each.frame.hex().encode()):
                        shown = pqc("inspect - --json", data).data
                        explained[shown["kind"]] = shown
                    to.sessions.receive(NOW, each.frame, each.context)
    assert list(explained) == ["message_1", "message_2", "message_3", "message_4", "packet"]
    assert explained["message_1"]["sender"] == pair.sensor.bundle.kid.hex()
    assert explained["message_2"]["session"] == explained["message_4"]["session"]
    assert explained["packet"]["payload_bytes"] == 4
    assert pqc("inspect - --json", b"\1\2\3").code == 3
