"""The inbox: on disk with its number before anybody sees it, there until acknowledged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import pqc_iiot.queues
from devices import Pair, events, introduce, make, refused
from pqc_iiot import (
    DuplicateError,
    Incoming,
    Message,
    Node,
    Policy,
    PqcIiotError,
    QueueFullError,
    ReplayError,
    StateError,
)
from pqc_iiot.errors import StateTamperedError
from pqc_iiot.queues import SEGMENTS
from pqc_iiot.store.journal import segments

CONTEXT = "line1/temp"


def receive(pair: Pair, *payloads: bytes) -> list[Message]:
    """Sent by the sensor, taken into the controller's inbox in one commit."""
    frames = [Incoming(pair.frame(payload), CONTEXT) for payload in payloads]
    results = pair.plc.open_many(frames, durable=True)
    messages = [each for each in results if isinstance(each, Message)]
    assert len(messages) == len(payloads)
    return messages


def crash(node: Node) -> None:
    """Ends a node as a crash does: nothing is written any more, and the folder is free."""
    state = node._state
    assert state is not None
    node._state = None
    state.queues.abandon()
    state.store.close()
    state.audit.close()
    state.identity.close()
    state.folder.close()


def crash_and_open(pair: Pair) -> Node:
    crash(pair.plc)
    pair.plc = Node.open(pair.folder / "plc")
    return pair.plc


def payloads(node: Node) -> list[bytes]:
    return [message.payload for message in node.inbox.messages()]


def test_only_what_is_received_durably_gets_there(pair: Pair) -> None:
    (result,) = pair.plc.open_many([Incoming(pair.frame(), CONTEXT)])
    assert isinstance(result, Message)
    assert not pair.plc.inbox.messages()


def test_what_comes_twice_in_one_batch_is_there_once(pair: Pair) -> None:
    incoming = Incoming(pair.frame(), CONTEXT)
    first, second = pair.plc.open_many([incoming, incoming], durable=True)
    assert isinstance(second, DuplicateError)
    assert pair.plc.inbox.messages() == [first]


def test_what_a_crashed_sender_sends_again_raises_no_alarm(pair: Pair) -> None:
    """It sends everything that it does not know to have arrived, however much."""
    frames = [Incoming(pair.frame(), CONTEXT) for _ in range(100)]
    for each in pair.plc.open_many(frames, durable=True):
        assert isinstance(each, Message)
    for again in (lambda _: pair.plc, crash_and_open):
        results = again(pair).open_many(frames, durable=True)
        assert {type(each) for each in results} == {DuplicateError}
    assert not any(event.event == "refused_replay" for event in events(pair.plc))


@pytest.mark.parametrize("again", [crash_and_open, lambda pair: pair.reopen()])
def test_what_was_not_acknowledged_is_there_again(
    pair: Pair, again: Callable[[Pair], object]
) -> None:
    messages = receive(pair, b"1", b"2", b"3")
    pair.plc.inbox.ack(messages[1])
    again(pair)
    assert pair.plc.inbox.messages() == [messages[0], messages[2]]
    assert [m.id for m in pair.plc.inbox.messages()] == [messages[0].id, messages[2].id]
    pair.plc.inbox.ack(*messages)
    again(pair)
    assert pair.plc.inbox.messages() == []


def test_a_replay_never_becomes_a_message_again(pair: Pair) -> None:
    frame = Incoming(pair.frame(), CONTEXT)
    (message,) = pair.plc.open_many([frame], durable=True)
    assert isinstance(message, Message)
    for _ in range(2):
        for durable in (True, False):
            (result,) = pair.plc.open_many([frame], durable=durable)
            assert isinstance(result, DuplicateError)
        (result,) = pair.plc.open_many([Incoming(frame.frame, "line2/temp")], durable=True)
        assert isinstance(result, ReplayError)
        assert len(pair.plc.inbox) in (0, 1)
        crash_and_open(pair)
        pair.plc.inbox.ack(message)
        crash_and_open(pair)
        assert len(pair.plc.inbox) == 0


def test_both_ways_of_opening_share_their_numbers(pair: Pair) -> None:
    old = [pair.frame() for _ in range(4)]
    receive(pair, b"durable")
    between = pair.frame()
    pair.plc.open(between, context=CONTEXT)
    with refused(pair.plc, DuplicateError, "refused_duplicate"):
        pair.plc.open(between, context=CONTEXT)
    receive(pair, b"durable")
    crash_and_open(pair)
    for frame in old:
        with refused(pair.plc, ReplayError, "refused_replay"):
            pair.plc.open(frame, context=CONTEXT)
    pair.plc.open(pair.frame(), context=CONTEXT)
    pair.reopen()
    for frame in old:
        with refused(pair.plc, ReplayError, "refused_replay"):
            pair.plc.open(frame, context=CONTEXT)


def test_one_commit_and_one_fsync_for_a_batch(pair: Pair) -> None:
    receive(pair, b"the first makes the file")
    before = pair.plc.status()
    messages = receive(pair, *(b"%d" % number for number in range(50)))
    pair.plc.inbox.ack_later(*messages)
    receive(pair, b"with what was acknowledged before")
    after = pair.plc.status()
    assert after.queues.commits - before.queues.commits == 2
    assert after.queues.fsyncs - before.queues.fsyncs == 2
    assert after.store == before.store
    assert (after.queues.inbox, after.queues.messages) == (2, 52)


def test_an_acknowledgement_rides_along_with_the_next_commit(pair: Pair) -> None:
    (one,) = receive(pair, b"1")
    pair.plc.inbox.ack_later(one)
    assert payloads(pair.plc) == []
    crash_and_open(pair)
    assert payloads(pair.plc) == [b"1"]  # nothing had made it durable
    pair.plc.inbox.ack_later(one)
    receive(pair, b"2")
    crash_and_open(pair)
    assert payloads(pair.plc) == [b"2"]


def test_a_clean_end_keeps_what_was_acknowledged(pair: Pair) -> None:
    (one,) = receive(pair, b"1")
    pair.plc.inbox.ack_later(one)
    pair.reopen()
    assert payloads(pair.plc) == []
    assert segments(pair.folder / "plc") == []


def test_a_batch_that_cannot_be_made_durable_has_not_happened(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(pair, b"1")
    frame = Incoming(pair.frame(b"2"), CONTEXT)

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StateError, match="No space"):
            pair.plc.open_many([frame], durable=True)
    assert payloads(pair.plc) == [b"1"]
    assert events(pair.plc)[-1].event == "state_missing"
    (message,) = pair.plc.open_many([frame], durable=True)
    assert isinstance(message, Message)
    crash_and_open(pair)
    assert payloads(pair.plc) == [b"1", b"2"]


def test_no_payload_lies_on_disk_in_clear(pair: Pair) -> None:
    secret = b"a recipe that nobody else must read"
    receive(pair, secret)
    pair.plc.outbox.put(secret, to="sensor")
    for _ in range(2):
        for file in (pair.folder / "plc").rglob("*"):
            assert not file.is_file() or secret not in file.read_bytes(), file
        pair.reopen()


@pytest.mark.parametrize("policy", [Policy(inbox_messages=2), Policy(inbox_bytes=300)])
def test_a_full_inbox_takes_no_more(pair: Pair, policy: Policy) -> None:
    pair.plc.policy = policy
    messages = receive(pair, b"1", b"2", b"3")  # one batch may go beyond
    frame = Incoming(pair.frame(b"4"), CONTEXT)
    assert pair.plc.inbox.full
    with pytest.raises(QueueFullError):
        pair.plc.open_many([frame], durable=True)
    with pytest.raises(QueueFullError):
        pair.plc.inbox.put([])
    pair.plc.inbox.ack(*messages)
    (result,) = pair.plc.open_many([frame], durable=True)
    assert isinstance(result, Message)


def test_messages_of_sessions_are_kept_under_their_own_ids(pair: Pair) -> None:
    (by_frame,) = receive(pair, b"by a frame")
    fingerprint = pair.sensor.bundle.fingerprint
    by_session = [
        Message("sensor", by_frame.sequence, b"by a session", CONTEXT, fingerprint, session)
        for session in (b"one", b"two")
    ]
    pair.plc.inbox.put(by_session)
    crash_and_open(pair)
    assert pair.plc.inbox.messages() == [by_frame, *by_session]
    assert len({message.id for message in pair.plc.inbox.messages()}) == 3
    pair.plc.inbox.ack(by_session[0])
    crash_and_open(pair)
    assert pair.plc.inbox.messages() == [by_frame, by_session[1]]
    assert isinstance(pair.plc.open(pair.frame(), context=CONTEXT), Message)


@pytest.mark.parametrize("mostly", ["acknowledged", "waiting"])
def test_a_long_journal_is_begun_anew(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, mostly: str
) -> None:
    monkeypatch.setattr(pqc_iiot.queues, "SEGMENT", 4096)
    first, kept = pair.frame(), []
    for number in range(12):
        batch = receive(pair, *(b"%d %d" % (number, each) * 20 for each in range(10)))
        if mostly == "acknowledged":
            pair.plc.inbox.ack_later(*batch[1:])
            batch = batch[:1]
        kept += batch
    files = len(segments(pair.folder / "plc"))
    assert files == 1 if mostly == "acknowledged" else files > 1
    crash_and_open(pair)
    pair.plc.inbox.flush()
    again = pair.plc.inbox.messages()
    assert again[: len(kept) - 1] == kept[:-1]  # of the last batch nothing was durable
    with refused(pair.plc, ReplayError, "refused_replay"):
        pair.plc.open(first, context=CONTEXT)
    pair.reopen()
    assert pair.plc.inbox.messages() == again


@pytest.mark.parametrize("end", [crash_and_open, lambda pair: pair.reopen()])
def test_a_device_that_restarts_often_has_no_more_files_for_it(
    pair: Pair, end: Callable[[Pair], object]
) -> None:
    """No life of it writes so much that the journal is begun anew for its length."""
    (waiting,) = receive(pair, b"waits all the time")
    frames = [pair.frame() for _ in range(40)]
    for number, frame in enumerate(frames):
        message = pair.plc.open_many([Incoming(frame, CONTEXT)], durable=True)[0]
        assert isinstance(message, Message)
        pair.plc.inbox.ack(message)
        end(pair)
        assert len(segments(pair.folder / "plc")) <= SEGMENTS
        assert pair.plc.inbox.messages() == [waiting]
        results = pair.plc.open_many([Incoming(each, CONTEXT) for each in frames[: number + 1]])
        assert {type(each) for each in results} <= {DuplicateError, ReplayError}


def test_a_journal_of_many_lives_is_not_longer_than_that_of_one(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pqc_iiot.queues, "SEGMENT", 4096)
    monkeypatch.setattr(pqc_iiot.queues, "SEGMENTS", 1000)
    for _ in range(40):
        pair.plc.inbox.ack(*receive(pair, b"x" * 500))
        crash_and_open(pair)
        size = sum(each.stat().st_size for each in segments(pair.folder / "plc"))
        assert size < 2 * 4096 + 1000
    assert len(segments(pair.folder / "plc")) > 2


def test_numbers_outlive_the_journal_that_had_them(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a peer that is heard seldom nothing is left in it when it is begun anew."""
    monkeypatch.setattr(pqc_iiot.queues, "SEGMENT", 4096)
    with make(tmp_path, "seldom") as seldom:
        introduce(pair.plc, seldom)
        once = Incoming(seldom.seal(b"once", to="plc", context=CONTEXT), CONTEXT)
    (message,) = pair.plc.open_many([once], durable=True)
    assert isinstance(message, Message)
    pair.plc.inbox.ack(message)

    def is_known() -> bool:
        (result,) = pair.plc.open_many([once], durable=True)
        return isinstance(result, DuplicateError)

    for _ in range(2):  # the first time it is still in the journal when that is read
        crash_and_open(pair)
        oldest = segments(pair.folder / "plc")[0]
        while oldest in segments(pair.folder / "plc"):
            pair.plc.inbox.ack_later(*receive(pair, b"often" * 200))
    crash_and_open(pair)
    assert is_known()
    pair.plc.inbox.ack(*pair.plc.inbox.messages())
    pair.reopen()
    assert segments(pair.folder / "plc") == []
    assert is_known()


@pytest.mark.parametrize("heard", [1, 2])
def test_a_clean_end_keeps_the_numbers(pair: Pair, heard: int) -> None:
    frames = [Incoming(pair.frame(), CONTEXT) for _ in range(heard)]
    messages = pair.plc.open_many(frames, durable=True)
    pair.plc.inbox.ack(*(each for each in messages if isinstance(each, Message)))
    pair.reopen()
    assert segments(pair.folder / "plc") == []
    for frame in frames:
        (result,) = pair.plc.open_many([frame], durable=True)
        assert isinstance(result, DuplicateError)


def test_a_journal_that_was_taken_away_is_missed(pair: Pair) -> None:
    receive(pair, b"1")
    pair.plc.close()
    for file in segments(pair.folder / "plc"):
        file.unlink()
    with pytest.raises(StateTamperedError) as caught:
        Node.open(pair.folder / "plc")
    assert "recover" in caught.value.hint
    Node.recover(pair.folder / "plc").close()
    with Node.open(pair.folder / "plc") as plc:
        assert plc.inbox.messages() == []


def test_a_recovered_device_reads_no_old_journal(pair: Pair) -> None:
    receive(pair, b"1")
    pair.plc.close()
    (file,) = segments(pair.folder / "plc")
    with Node.recover(pair.folder / "plc") as plc:
        assert plc.inbox.messages() == []
    assert file.with_name(file.name + ".old").exists()


def test_the_status_tells_what_waits(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = receive(pair, b"12", b"34")
    clock = pair.plc._state.queues.clock  # type: ignore[union-attr]
    monkeypatch.setattr(clock, "_since_boot", lambda: int(1e6))
    clock.resume(1000, 0, b"another boot")
    queues = pair.plc.status().queues
    assert (queues.inbox, queues.inbox_bytes) == (2, 2 * (2 + len(CONTEXT) + 128))
    assert 990 <= queues.inbox_age <= 1000
    assert queues.commit_max >= queues.commit_mean > 0
    assert queues.fsyncs_per_message == queues.fsyncs / 2
    assert queues.written > 0
    pair.plc.inbox.ack(*messages)
    assert pair.plc.status().queues.inbox_age == 0


def test_in_memory_it_lasts_as_long_as_the_node(tmp_path: Path, pair: Pair) -> None:
    provider = "software:insecure-plaintext-keys"
    with Node.create(tmp_path / "m", name="m", provider=provider, store="memory:") as node:
        node.peers.add_approved(pair.sensor.bundle)
        pair.sensor.peers.add_approved(node.bundle)
        frame = Incoming(pair.sensor.seal(b"1", to="m"), "")
        (message,) = node.open_many([frame], durable=True)
        assert not isinstance(message, PqcIiotError)
        assert node.inbox.messages() == [message]
        (result,) = node.open_many([frame], durable=True)
        assert isinstance(result, DuplicateError)
        node.inbox.ack(message)
        assert len(node.inbox) == 0
    assert segments(tmp_path / "m") == []
