"""The outbox on a bus: what was accepted arrives, or is reported."""

from __future__ import annotations

import asyncio

import pytest

from brokers import until
from devices import Pair, events
from pqc_iiot import (
    BrokerRefusedError,
    InvalidInputError,
    Outgoing,
    Policy,
    PqcIiotError,
    StateError,
    TransportError,
)
from pqc_iiot.transports import Payload
from pqc_iiot.transports.bus import Bus, Listening
from pqc_iiot.transports.durable import WINDOW
from pqc_iiot.transports.memory import MemoryBroker, MemoryTransport
from test_bus import in_loop
from test_bus_durable import TOPIC, take, text


class Moody(MemoryTransport):
    """A client whose broker refuses, or is not there."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker, "")
        self.there = asyncio.Event()
        self.there.set()
        self.refuses = ""

    async def publish(
        self, topic: str, payload: Payload, *, qos: int = 1, retain: bool = False
    ) -> None:
        await self.there.wait()
        if topic == self.refuses:
            raise BrokerRefusedError("not authorized")
        await super().publish(topic, payload, qos=qos, retain=retain)


class Plc:
    """The controller, listening."""

    def __init__(self, pair: Pair, broker: MemoryBroker) -> None:
        self.bus = Bus(pair.plc, broker.client())
        self.messages = self.bus.listen("#")

    async def __aenter__(self) -> Listening:
        await self.bus.__aenter__()
        await self.messages.ready()
        return self.messages

    async def __aexit__(self, *_: object) -> None:
        await self.bus.aclose()


@in_loop
async def test_accepted_means_it_arrives(pair: Pair) -> None:
    broker = MemoryBroker()
    async with Plc(pair, broker) as arrived, Bus(pair.sensor, broker.client()) as bus:
        numbers = range(300)
        sending = [bus.send("plc", TOPIC, b"%d" % number, durable=True) for number in numbers]
        taking = asyncio.ensure_future(take(arrived, 300))
        await asyncio.gather(*sending)
        assert text(await taking) == [b"%d" % number for number in numbers]
        await bus.drained()
    queues = pair.sensor.status().queues
    assert (queues.outbox, queues.messages) == (0, 300)
    assert queues.fsyncs < 100  # together


@in_loop
async def test_what_was_accepted_without_a_broker_goes_out_with_the_next_one(pair: Pair) -> None:
    broker = MemoryBroker()
    client = Moody(broker)
    client.there.clear()
    async with Bus(pair.sensor, client) as bus:
        for number in range(3):
            await bus.send("plc", TOPIC, b"%d" % number, durable=True)
    assert len(pair.sensor.outbox) == 3
    waiting = pair.sensor.outbox.waiting()
    pair.reopen()
    assert pair.sensor.outbox.waiting() == waiting
    async with Plc(pair, broker) as arrived, Bus(pair.sensor, broker.client()) as bus:
        assert text(await take(arrived, 3)) == [b"0", b"1", b"2"]
        await bus.drained()
    pair.reopen()
    assert len(pair.sensor.outbox) == 0


@in_loop
async def test_a_frame_that_is_given_up_before_its_task_began_leaves_its_place(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = MemoryBroker()
    async with Bus(pair.sensor, broker.client()) as bus:
        sending, cancelled = bus._sending, set[int]()
        move = sending._move

        def give_up() -> None:
            for number, task in sending._flying.items():
                if number not in cancelled:
                    cancelled.add(number)
                    task.cancel()
            move()

        monkeypatch.setattr(sending, "_move", give_up)
        for number in range(3):
            await bus.send("plc", TOPIC, b"%d" % number, durable=True)
        await until(lambda: len(cancelled) == 3 and not sending._flying)
        assert sending._window._value == WINDOW
        monkeypatch.undo()
    assert len(pair.sensor.outbox) == 3


@in_loop
async def test_nothing_overtakes_what_waits(pair: Pair) -> None:
    """A higher number that came first would let the others be refused as old."""
    broker = MemoryBroker()
    async with Bus(pair.sensor, Moody(broker)) as bus:
        bus._sending._closed = True  # so that these stay, as after a crash
        for number in range(3):
            pair.sensor.outbox.put(b"%d" % number, to="plc", context=TOPIC)
    client = Moody(broker)
    client.there.clear()
    async with Plc(pair, broker) as arrived, Bus(pair.sensor, client) as bus:
        sending = asyncio.ensure_future(bus.send("plc", TOPIC, b"3"))
        client.there.set()
        await sending
        await bus.send("plc", TOPIC, b"4", durable=True)
        await bus.send("plc", TOPIC, b"5")
        expected = [b"%d" % number for number in range(6)]
        assert text(await take(arrived, 6)) == expected


@in_loop
async def test_a_full_outbox_lets_senders_wait(pair: Pair) -> None:
    pair.sensor.policy = Policy(outbox_messages=2)
    broker = MemoryBroker()
    client = Moody(broker)
    client.there.clear()
    async with Plc(pair, broker) as arrived, Bus(pair.sensor, client) as bus:
        await bus.send("plc", TOPIC, b"0", durable=True)
        await bus.send("plc", TOPIC, b"1", durable=True)
        waiting = asyncio.ensure_future(bus.send("plc", TOPIC, b"2", durable=True))
        await until(lambda: bus._sending._committing is not None)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        client.there.set()
        await waiting
        assert text(await take(arrived, 3)) == [b"0", b"1", b"2"]


@in_loop
async def test_who_waits_for_room_hears_of_the_end(pair: Pair) -> None:
    pair.sensor.policy = Policy(outbox_messages=1)
    client = Moody(MemoryBroker())
    client.there.clear()
    async with Bus(pair.sensor, client) as bus:
        await bus.send("plc", TOPIC, b"0", durable=True)
        waiting = asyncio.ensure_future(bus.send("plc", TOPIC, b"1", durable=True))
        draining = asyncio.ensure_future(bus.drained())
        await asyncio.sleep(0.01)
    for each in (waiting, draining):
        with pytest.raises(TransportError):
            await each
    assert len(pair.sensor.outbox) == 1


@in_loop
async def test_what_expires_is_reported_and_not_sent(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.transports.durable.TICK", 0.001)
    pair.sensor.policy = Policy(outbox_age=100)
    lost: list[tuple[Outgoing, PqcIiotError | None]] = []
    pair.sensor.outbox.on_lost = lambda entry, error: lost.append((entry, error))
    broker = MemoryBroker()
    client = Moody(broker)
    client.there.clear()
    async with Plc(pair, broker) as arrived, Bus(pair.sensor, client) as bus:
        await bus.send("plc", TOPIC, b"old", durable=True)
        later = pair.sensor._state.queues.clock._since_boot() + 100  # type: ignore[union-attr]
        monkeypatch.setattr("pqc_iiot.queues.Clock._since_boot", staticmethod(lambda: later))
        await until(lambda: bool(lost))
        await bus.drained()
        client.there.set()
        await bus.send("plc", TOPIC, b"new", durable=True)
        assert text(await take(arrived, 1)) == [b"new"]
    assert [error for _, error in lost] == [None]
    assert pair.sensor.status().queues.expired == 1


@in_loop
async def test_what_the_broker_refuses_is_reported(pair: Pair) -> None:
    lost: list[str] = []
    pair.sensor.outbox.on_lost = lambda _, error: lost.append(error.code if error else "")
    client = Moody(MemoryBroker())
    client.refuses = TOPIC
    async with Bus(pair.sensor, client) as bus:
        await bus.send("plc", TOPIC, b"1", durable=True)
        await bus.drained()
    assert lost == ["broker_refused"]
    assert [event.event for event in events(pair.sensor)].count("outbox_refused") == 1


@in_loop
async def test_nothing_goes_to_a_peer_that_was_revoked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.transports.durable.TICK", 0.001)
    broker = MemoryBroker()
    client = Moody(broker)
    client.there.clear()
    async with Plc(pair, broker), Bus(pair.sensor, client) as bus:
        await bus.send("plc", TOPIC, b"with the transport already", durable=True)
        pair.sensor.peers.revoke("plc")
        await bus.drained()
        client.there.set()
    assert pair.sensor.status().queues.refused == 1
    assert not any(session.inbox for session in broker.sessions.values())


@in_loop
async def test_what_cannot_be_accepted_is_said_at_once(pair: Pair) -> None:
    async with Bus(pair.sensor, MemoryBroker().client()) as bus:
        for topic, qos in (("a/#", 1), (TOPIC, 0)):
            with pytest.raises(InvalidInputError):
                await bus.send("plc", topic, b"1", qos=qos, durable=True)
        pair.sensor.close()
        with pytest.raises(StateError):
            await bus.send("plc", TOPIC, b"1", durable=True)
