"""Sessions of a node as a bus uses them: packets one after the other, frames in batches,
one owner."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from devices import Pair, events, introduce, make, refused
from pqc_iiot import (
    InvalidInputError,
    Message,
    Node,
    PolicyError,
    RevokedPeerError,
    UnknownPeerError,
)
from pqc_iiot.envelope import MAX_OVERHEAD
from pqc_iiot.policy import SessionUse
from pqc_iiot.session import Fate, Limits, Report, Send
from pqc_iiot.sessions import SessionStatus
from test_sessions import NOW, pump


def carry(one: Node, other: Node, now: float = NOW) -> list[Message]:
    """As `pump` of test_sessions, by the ways that a bus takes."""
    came: list[Message] = []
    moving = True
    while moving:
        moving = False
        for node, to in ((one, other), (other, one)):
            sent = [each for each in node.sessions.take() if isinstance(each, Send)]
            moving = moving or bool(sent)
            to.sessions.receive_inbox(now, [each.frame for each in sent if each.context is None])
            packets = [each for each in sent if each.context is not None]
            contexts = [each.context or "" for each in packets]
            results = to.sessions.receive_many(now, contexts, [each.frame for each in packets])
            came += [each for each in results if isinstance(each, Message)]
    return came


@pytest.fixture
def ready(pair: Pair) -> Pair:
    """Two devices with a session that both use."""
    pair.sensor.sessions.want(NOW, to="plc")
    carry(pair.sensor, pair.plc)
    assert pair.sensor.sessions.ready("plc")
    return pair


def closely(pair: Pair, payload: bytes = b"1") -> tuple[bytes, int]:
    sealed = pair.sensor.sessions.seal(NOW, payload, to="plc", context="t")
    assert sealed is not None
    return sealed


def test_handshakes_go_through_the_inbox_and_leave_no_refusal(pair: Pair) -> None:
    pair.sensor.sessions.send(NOW, b"hello", to="plc", context="t")
    assert not pair.sensor.sessions.ready("plc")
    (message,) = carry(pair.sensor, pair.plc)
    assert (message.payload, message.context) == (b"hello", "t")
    for node, peer in ((pair.sensor, "plc"), (pair.plc, "sensor")):
        assert node.sessions.ready(peer)
        assert node.sessions.status() == SessionStatus(1, 1, 0)
        assert not [each for each in events(node) if each.event.startswith("refused")]
    with pytest.raises(UnknownPeerError):
        pair.sensor.sessions.ready("nobody")


def test_after_one_that_was_looked_at_closely_packets_need_no_timer(ready: Pair) -> None:
    sessions = ready.sensor.sessions
    assert sessions.seal_at_ease(NOW, b"0", "plc", "t") is None
    first, token = closely(ready)
    due = sessions.due
    second = sessions.seal_at_ease(NOW, b"2", "plc", "t")
    third = sessions.seal_at_ease(NOW, b"3", "plc", "t")
    assert second is not None
    assert third is not None
    assert [second[1], third[1]] == [token + 1, token + 2]
    assert sessions.due == due
    packets = [first, second[0], third[0]]
    results = ready.plc.sessions.receive_many(NOW, ["t"] * 3, packets)
    assert [each.payload for each in results if isinstance(each, Message)] == [b"1", b"2", b"3"]


def test_only_what_policy_allows_goes_at_ease(ready: Pair) -> None:
    sensor = ready.sensor
    largest = sensor.policy.max_payload
    closely(ready)
    assert sensor.sessions.seal_at_ease(NOW, b"", "nobody", "t") is None
    assert sensor.sessions.seal_at_ease(NOW, bytes(largest + 1), "plc", "t") is None
    assert sensor.sessions.seal_at_ease(NOW, bytes(largest), "plc", "t") is not None
    sensor.policy = replace(sensor.policy, max_payload=10)
    assert sensor.sessions.seal_at_ease(NOW, b"", "plc", "t") is None, "asked again first"
    closely(ready)
    assert sensor.sessions.seal_at_ease(NOW, bytes(11), "plc", "t") is None
    assert sensor.sessions.seal_at_ease(NOW, bytes(10), "plc", "t") is not None
    with pytest.raises(InvalidInputError):
        closely(ready, bytes(11))
    sensor.peers.revoke("plc")
    assert sensor.sessions.seal_at_ease(NOW, b"", "plc", "t") is None
    with pytest.raises(RevokedPeerError):
        closely(ready)


def test_a_device_that_must_log_looks_at_each_message(ready: Pair) -> None:
    sensor = ready.sensor
    closely(ready)
    sensor.policy = replace(sensor.policy, audit_required=True)
    closely(ready)
    assert sensor.sessions.seal_at_ease(NOW, b"", "plc", "t") is None


def test_a_forked_child_seals_no_packet(ready: Pair) -> None:
    closely(ready)
    child = os.fork()
    if not child:
        os._exit(ready.sensor.sessions.seal_at_ease(NOW, b"", "plc", "t") is not None)
    assert os.waitpid(child, 0)[1] == 0
    assert ready.sensor.sessions.seal_at_ease(NOW, b"", "plc", "t") is not None


def test_packets_do_not_wait_for_whoever_holds_the_lock_of_the_node(ready: Pair) -> None:
    """That is held while others wait for the disk."""
    ready.plc.sessions.receive_many(NOW, ["t"], [closely(ready)[0]])
    ready.plc.sessions.tick(ready.plc.sessions.due)
    (told,) = (each for each in ready.plc.sessions.take() if isinstance(each, Send))
    reports: list[object] = []

    def work() -> None:
        ready.sensor.sessions.receive_inbox(NOW, [told.frame])
        reports.extend(ready.sensor.sessions.take())

    with ready.sensor._lock:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert [report.fate for report in reports if isinstance(report, Report)] == [Fate.CONFIRMED]


def test_nothing_goes_at_ease_on_a_session_that_was_replaced_or_ended(ready: Pair) -> None:
    closely(ready)
    ready.sensor.sessions.close()
    assert ready.sensor.sessions.seal_at_ease(NOW, b"", "plc", "t") is None
    assert ready.sensor.sessions.status() == SessionStatus(0, 0, 0)


def test_each_refusal_of_a_batch_is_an_event(ready: Pair) -> None:
    plc = ready.plc
    limit = plc.policy.max_payload + MAX_OVERHEAD
    before = len(events(plc))
    plc.sessions.receive_inbox(NOW, [b"\x02junk", bytes(limit + 1), b"\x03junk", b"\x03junk"])
    packets = [b"\x01" + bytes(40)] * 3
    results = plc.sessions.receive_many(NOW, ["t"] * 3, packets)
    assert [isinstance(each, Message) for each in results] == [False] * 3
    plc.audit.flush()
    refused = [each.event for each in events(plc)[before:]]
    assert sorted(set(refused)) == ["refused_invalid_frame", "refused_unknown_peer"]
    assert len(refused) == 7
    assert not plc.sessions.take(), "refusals of a batch are told by the log alone"


@pytest.mark.parametrize("window", [0, 8])
def test_policy_says_how_late_a_packet_may_come(pair: Pair, window: int) -> None:
    pair.plc.policy = replace(pair.plc.policy, session_window=window)
    pair.sensor.sessions.want(NOW, to="plc")
    carry(pair.sensor, pair.plc)
    packets = [closely(pair, payload)[0] for payload in (b"1", b"2")]
    second, first = pair.plc.sessions.receive_many(NOW, ["t", "t"], packets[::-1])
    assert isinstance(second, Message)
    assert isinstance(first, Message) == (window > 0)


def test_who_has_a_session_with_whom_is_in_both_logs(ready: Pair) -> None:
    closely(ready)
    seen = []
    for node in (ready.sensor, ready.plc):
        (record,) = (each for each in events(node) if each.event == "session_established")
        seen.append((record.peer, record.detail["name"], record.detail["began"]))
        assert len(str(record.detail["session"])) == 8
    plc, sensor = ready.plc.bundle.fingerprint.hex(), ready.sensor.bundle.fingerprint.hex()
    assert seen == [(plc, "plc", True), (sensor, "sensor", False)]


def test_what_must_not_be_sent_is_an_event(pair: Pair) -> None:
    with refused(pair.sensor, UnknownPeerError, "refused_unknown_peer"):
        pair.sensor.sessions.send(NOW, b"x", to="nobody", context="t")
    detail = events(pair.sensor)[-1].detail
    assert (detail["name"], detail["context"]) == ("nobody", "t")


def test_sizes_are_those_of_policy_on_every_way_in(pair: Pair) -> None:
    for node in (pair.sensor, pair.plc):
        node.policy = replace(node.policy, max_payload=10)
    pair.sensor.sessions.send(NOW, bytes(10), to="plc", context="t")
    assert [message.payload for message in carry(pair.sensor, pair.plc)] == [bytes(10)]
    pair.sensor.sessions.send(NOW, bytes(10), to="plc", context="t")
    (arrived,) = (each for each in pump(pair.sensor, pair.plc) if isinstance(each, Message))
    assert arrived.payload == bytes(10)
    for context in (None, "t"):
        before = len(events(pair.plc))
        pair.plc.sessions.receive(NOW, b"\x01" + bytes(10 + MAX_OVERHEAD), context)
        assert [each.event for each in events(pair.plc)[before:]] == ["refused_invalid_frame"]
        assert not pair.plc.sessions.take(), "it got no further than that"


def test_only_so_many_peers_are_remembered(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.sessions._CHANNELS", 2)
    with make(tmp_path, "b") as b, make(tmp_path, "c") as c:
        introduce(pair.sensor, b)
        introduce(pair.sensor, c)
        for node in (pair.plc, b, c):
            pair.sensor.sessions.want(NOW, to=node.name)
            carry(pair.sensor, node)
            assert pair.sensor.sessions.seal(NOW, b"", to=node.name, context="t") is not None
            assert 1 <= len(pair.sensor.sessions._channels) <= 2
        at_ease = pair.sensor.sessions.seal_at_ease
        assert [at_ease(NOW, b"", name, "t") is None for name in ("plc", "b", "c")] == [
            True, True, False,
        ]  # fmt: skip


def test_where_policy_allows_no_sessions_nobody_has_any(pair: Pair) -> None:
    pair.sensor.sessions.send(NOW, b"x", to="plc", context="t")
    (message_1,) = (each for each in pair.sensor.sessions.take() if isinstance(each, Send))
    pair.plc.policy = replace(pair.plc.policy, sessions=SessionUse.NEVER)
    pair.plc.sessions.receive_inbox(NOW, [message_1.frame])
    before = len(events(pair.plc))
    pair.plc.sessions.receive(NOW, message_1.frame, None)
    assert [each.event for each in events(pair.plc)[before:]] == ["refused_policy"]
    assert not pair.plc.sessions.take()
    assert pair.plc.sessions.status() == SessionStatus(0, 0, 0)
    for call in (pair.plc.sessions.send, pair.plc.sessions.seal):
        with pytest.raises(PolicyError, match="no sessions") as caught:
            call(NOW, b"x", to="sensor", context="t")
        assert "--sessions auto" in caught.value.hint
    with pytest.raises(PolicyError):
        pair.plc.sessions.want(NOW, to="sensor")


def test_policy_ends_the_sessions_that_it_forbids(ready: Pair) -> None:
    ready.plc.policy = replace(ready.plc.policy, sessions=SessionUse.NEVER)
    assert ready.plc.sessions.status() == SessionStatus(0, 0, 0)


def test_one_owner_carries_the_frames_of_a_node(pair: Pair) -> None:
    sessions, one, other = pair.plc.sessions, object(), object()
    assert sessions.claim(one)
    assert sessions.claim(one)
    assert not sessions.claim(other)
    sessions.release(other)
    assert not sessions.claim(other), "who owns nothing releases nothing"
    sessions.release(one)
    assert sessions.claim(other)


def test_sessions_give_up_after_the_time_of_their_limits(pair: Pair) -> None:
    assert pair.plc.sessions.patience == Limits().give_up


def test_a_peer_that_does_not_answer_is_left_alone_only_by_who_is_patient(pair: Pair) -> None:
    sessions = pair.sensor.sessions
    sessions.want(NOW, to="plc")
    now = NOW
    while sessions.due < NOW + 200:
        now = sessions.due
        sessions.tick(now)
    sessions.take()
    sessions.want(now, to="plc")
    assert not sessions.take()
    sessions.want(now, to="plc", patient=False)
    assert sessions.take()
