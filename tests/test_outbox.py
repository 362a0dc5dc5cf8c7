"""The outbox: accepted means on disk, and gone only when a broker has it or it was reported."""

from __future__ import annotations

import os
import threading

import pytest

from devices import Pair, events
from pqc_iiot import (
    BrokerRefusedError,
    DuplicateError,
    InvalidInputError,
    Node,
    Outgoing,
    Policy,
    PqcIiotError,
    QueueFullError,
    RevokedPeerError,
    StateError,
    UnknownPeerError,
)
from pqc_iiot.envelope import parse
from pqc_iiot.outbox import Order
from test_inbox import CONTEXT, crash


def put(pair: Pair, *payloads: bytes) -> list[Outgoing]:
    """Accepted by the sensor's outbox, one by one."""
    return [pair.sensor.outbox.put(each, to="plc", context=CONTEXT) for each in payloads]


def crash_and_open(pair: Pair) -> Node:
    crash(pair.sensor)
    pair.sensor = Node.open(pair.folder / "sensor")
    return pair.sensor


def pass_time(node: Node, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the device's own clock go on."""
    assert node._state is not None
    clock = node._state.queues.clock
    later = clock._since_boot() + seconds
    monkeypatch.setattr(type(clock), "_since_boot", staticmethod(lambda: later))


def test_what_no_broker_has_is_there_again_byte_for_byte(pair: Pair) -> None:
    entries = put(pair, b"1", b"2", b"3")
    pair.sensor.outbox.sent(entries[1])
    for again in (crash_and_open, lambda pair: pair.reopen()):
        again(pair)
        assert pair.sensor.outbox.waiting() == [entries[0], entries[2]]
    assert pair.plc.open(entries[0].frame, context=CONTEXT).payload == b"1"
    assert pair.plc.open(entries[2].frame, context=CONTEXT).payload == b"3"
    with pytest.raises(DuplicateError):  # and quiet: sent again after a crash
        pair.plc.open(entries[2].frame, context=CONTEXT)
    pair.sensor.outbox.sent(*entries)
    crash_and_open(pair)
    assert pair.sensor.outbox.waiting() == []


def test_no_number_is_used_twice(pair: Pair) -> None:
    numbers = [entry.number for entry in put(pair, b"1", b"2")]
    for _ in range(3):
        crash_and_open(pair)
        numbers.append(parse(pair.frame()).sequence)
        numbers += [entry.number for entry in put(pair, b"3")]
    assert numbers == sorted(set(numbers))


def test_what_was_sent_may_go_again_until_it_is_durable(pair: Pair) -> None:
    (entry,) = put(pair, b"1")
    pair.sensor.outbox.sent_later(entry)
    assert pair.sensor.outbox.waiting() == []
    crash_and_open(pair)
    assert pair.sensor.outbox.waiting() == [entry]
    pair.sensor.outbox.sent_later(entry)
    pair.sensor.outbox.flush()
    crash_and_open(pair)
    assert pair.sensor.outbox.waiting() == []


def test_several_share_one_commit_and_each_has_its_own_result(pair: Pair) -> None:
    put(pair, b"the first makes the file")
    before = pair.sensor.status().queues
    orders = [Order(b"1", "plc"), Order(b"2", "stranger"), Order(b"3", "plc", retain=True)]
    first, second, third = pair.sensor.outbox.put_many(orders)
    after = pair.sensor.status().queues
    assert (after.fsyncs - before.fsyncs, after.messages - before.messages) == (1, 2)
    assert isinstance(second, UnknownPeerError)
    assert isinstance(first, Outgoing)
    assert isinstance(third, Outgoing)
    assert (third.number, third.retain) == (first.number + 1, True)
    assert pair.sensor.outbox.waiting()[1:] == [first, third]


def test_what_cannot_be_made_durable_is_not_accepted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(pair, b"1")

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(StateError, match="No space"):
            put(pair, b"2")
    assert events(pair.sensor)[-1].event == "state_missing"
    put(pair, b"3")
    crash_and_open(pair)
    frames = [entry.frame for entry in pair.sensor.outbox.waiting()]
    payloads = [pair.plc.open(frame, context=CONTEXT).payload for frame in frames]
    assert payloads == [b"1", b"3"]


@pytest.mark.parametrize("policy", [Policy(outbox_messages=2), Policy(outbox_bytes=3000)])
def test_a_full_outbox_takes_no_more(pair: Pair, policy: Policy) -> None:
    pair.sensor.policy = policy
    orders = [Order(b"%d" % number, "plc") for number in range(4)]
    results = pair.sensor.outbox.put_many(orders)
    assert [type(each) for each in results] == [Outgoing, Outgoing, QueueFullError, QueueFullError]
    with pytest.raises(QueueFullError):
        put(pair, b"5")
    crash_and_open(pair)
    with pytest.raises(QueueFullError):
        put(pair, b"5")
    pair.sensor.outbox.sent(pair.sensor.outbox.waiting()[0])
    put(pair, b"5")


def test_nobody_acknowledges_qos_0(pair: Pair) -> None:
    with pytest.raises(InvalidInputError):
        pair.sensor.outbox.put(b"1", to="plc", qos=0)


def test_what_waits_too_long_is_given_up_and_reported(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.sensor.policy = Policy(outbox_age=100)
    lost: list[tuple[Outgoing, PqcIiotError | None]] = []
    pair.sensor.outbox.on_lost = lambda entry, error: lost.append((entry, error))
    old, older = put(pair, b"1", b"2")
    assert pair.sensor.outbox.expire() == []
    pass_time(pair.sensor, 100, monkeypatch)
    (young,) = put(pair, b"3")  # to put in is to look, too
    assert lost == [(old, None), (older, None)]
    assert pair.sensor.outbox.waiting() == [young]
    assert pair.sensor.status().queues.expired == 2
    expired = [event for event in events(pair.sensor) if event.event == "outbox_expired"]
    assert [event.detail["sequence"] for event in expired] == [old.number, older.number]
    assert expired[0].detail["name"] == "plc"
    assert expired[0].detail["context"] == CONTEXT
    assert expired[0].detail["age"] in (100, 101)
    crash_and_open(pair)
    assert pair.sensor.outbox.waiting() == [young]


def test_no_wall_clock_makes_anything_expire(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.sensor.policy = Policy(outbox_age=100)
    (entry,) = put(pair, b"1")
    for now in (0.0, 4e9):  # 1970, and far ahead
        monkeypatch.setattr("time.time", lambda now=now: now)
        assert pair.sensor.outbox.expire() == []
        crash_and_open(pair)
        assert pair.sensor.outbox.waiting() == [entry]


def test_age_goes_on_after_a_restart_and_after_a_reboot(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.sensor.policy = Policy(outbox_age=100)
    put(pair, b"1")
    pass_time(pair.sensor, 60, monkeypatch)
    crash_and_open(pair)
    assert pair.sensor.status().queues.outbox_age in (60, 61)
    put(pair, b"2")
    crash(pair.sensor)
    # Another boot, whose clock starts again; how long the machine was off is unknown.
    monkeypatch.setattr("pqc_iiot.queues.BOOT_ID", pair.folder / "none")
    clock = "pqc_iiot.queues.Clock._since_boot"
    monkeypatch.setattr(clock, staticmethod(lambda: 5))
    pair.sensor = Node.open(pair.folder / "sensor")
    assert pair.sensor.status().queues.outbox_age in (60, 61)
    monkeypatch.setattr(clock, staticmethod(lambda: 45))
    assert len(pair.sensor.outbox.expire()) == 1


def test_what_is_refused_is_given_up_and_reported(pair: Pair) -> None:
    lost: list[tuple[Outgoing, PqcIiotError | None]] = []
    pair.sensor.outbox.on_lost = lambda entry, error: lost.append((entry, error))
    refused, kept = put(pair, b"1", b"2")
    error = BrokerRefusedError("not authorized")
    pair.sensor.outbox.give_up(refused, error)
    assert lost == [(refused, error)]
    assert pair.sensor.status().queues.refused == 1
    record = events(pair.sensor)[-1]
    assert (record.event, record.detail["refusal"]) == ("outbox_refused", "broker_refused")
    crash_and_open(pair)
    assert pair.sensor.outbox.waiting() == [kept]


def test_nothing_goes_to_a_peer_that_was_revoked_since(pair: Pair) -> None:
    (entry,) = put(pair, b"1")
    pair.sensor.outbox.check(entry)
    pair.sensor.peers.revoke("plc")
    with pytest.raises(RevokedPeerError):
        pair.sensor.outbox.check(entry)


def test_numbers_are_on_disk_in_their_order(pair: Pair) -> None:
    """Else one would come to its recipient after a higher one, and be refused."""
    order: list[int] = []
    state = pair.sensor._state
    assert state is not None
    send = state.queues.send

    def spy(entries: list[Outgoing]) -> None:
        order.extend(entry.number for entry in entries)
        send(entries)

    state.queues.send = spy  # type: ignore[method-assign]
    threads = [
        threading.Thread(target=put, args=(pair, *(b"%d" % number for number in range(20))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == sorted(set(order))
    assert len(order) == 80


def test_a_long_journal_is_begun_anew(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pqc_iiot.queues.SEGMENT", 20_000)
    kept = []
    for number in range(20):
        one, two = put(pair, b"%d" % number, b"%d" % number)
        pair.sensor.outbox.sent_later(one if number % 7 else two)
        kept += [two if number % 7 else one]
        pair.sensor.outbox.sent_later(*kept[:-3])
        kept = kept[-3:]
    pair.sensor.outbox.flush()
    crash_and_open(pair)
    assert pair.sensor.outbox.waiting() == kept
