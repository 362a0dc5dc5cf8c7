"""The MQTT client against a real mosquitto: what survives, and what is bounded."""

from __future__ import annotations

import asyncio
import signal

import pytest

from brokers import Start, in_loop, payloads, until
from pqc_iiot.errors import InvalidInputError
from pqc_iiot.transports.mqtt import MqttOptions, MqttTransport

OPEN = "allow_anonymous true"
BOTH = pytest.mark.parametrize("version", [5, 4])


class States:
    """Records what `on_state` is told, and lets a test wait for it."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._queue: asyncio.Queue[bool] = asyncio.Queue()

    def __call__(self, connected: bool, reason: str) -> None:
        self.reasons.append(reason)
        self._queue.put_nowait(connected)

    async def wait(self, connected: bool) -> None:
        while await self._queue.get() is not connected:
            pass


def cut(transport: MqttTransport) -> None:
    """Lose the connection as a broken cable does."""
    assert transport._session.link is not None
    transport._session.link.fail("cut")


# What survives


@BOTH
@in_loop
async def test_a_broker_that_dies_and_comes_back(start: Start, version: int) -> None:
    mosquitto = start(OPEN)
    states = States()
    options = MqttOptions(mosquitto.url, version=version, max_reconnect_delay=0.1)
    async with (
        MqttTransport(options, on_state=states) as receiver,
        MqttTransport(options) as sender,
    ):
        await receiver.subscribe("t/#")
        await sender.publish("t/1", b"before")
        assert await payloads(receiver, 1) == [b"before"]
        mosquitto.kill()
        await states.wait(False)
        during = [
            asyncio.create_task(sender.publish("t/2", b"during", qos=qos)) for qos in (0, 1, 2)
        ]
        await asyncio.sleep(0)
        assert not any(task.done() for task in during)
        mosquitto.start()
        await asyncio.gather(*during)  # resumed without being told to
        await states.wait(True)
        await sender.publish("t/3", b"after")
        while (await payloads(receiver, 1)) != [b"after"]:  # subscribed again
            pass


@BOTH
@pytest.mark.parametrize("qos", [1, 2])
@in_loop
async def test_unacknowledged_messages_survive_a_broken_connection(
    start: Start, version: int, qos: int
) -> None:
    mosquitto = start(OPEN)
    states = States()
    options = MqttOptions(
        mosquitto.url,
        version=version,
        client_id="plc-7",
        session_expiry=600,
        max_reconnect_delay=0.1,
    )
    async with (
        MqttTransport(options, on_state=states) as receiver,
        MqttTransport(MqttOptions(mosquitto.url)) as sender,
    ):
        await receiver.subscribe("t", qos=qos)
        await sender.publish("t", b"1", qos=qos)
        await sender.publish("t", b"2", qos=qos)
        one, two = (await receiver.receive(1))[0], (await receiver.receive(1))[0]
        one.ack()
        await sender.publish("t", b"3", qos=qos)
        assert await payloads(receiver, 1) == [b"3"]
        await receiver.publish("other", b"")  # answered, so it has had the acks before too
        cut(receiver)
        await states.wait(False)
        two.ack()  # of a connection that is gone
        await states.wait(True)
        assert await payloads(receiver, 1) == [b"2"]
        await sender.publish("t", b"4", qos=qos)
        assert await payloads(receiver, 1) == [b"4"]


@in_loop
async def test_an_mqtt5_connection_that_breaks_costs_nothing_by_default(start: Start) -> None:
    mosquitto = start(OPEN)
    states = States()
    async with (
        MqttTransport(MqttOptions(mosquitto.url), on_state=states) as receiver,
        MqttTransport(MqttOptions(mosquitto.url)) as sender,
    ):
        await receiver.subscribe("t")
        await sender.publish("t", b"1")
        await payloads(receiver, 1, ack=False)
        cut(receiver)
        await states.wait(False)
        await sender.publish("t", b"2")
        assert await payloads(receiver, 2) == [b"1", b"2"]


@BOTH
@in_loop
async def test_what_was_in_flight_is_sent_again(start: Start, version: int) -> None:
    mosquitto = start(OPEN, "max_queued_messages 0")
    options = MqttOptions(
        mosquitto.url,
        version=version,
        client_id="sensor",
        session_expiry=600,
        max_reconnect_delay=0.05,
    )
    async with (
        MqttTransport(MqttOptions(mosquitto.url)) as receiver,
        MqttTransport(options) as sender,
    ):
        await receiver.subscribe("t", qos=2)
        received: list[int] = []

        async def collect() -> None:
            while len(set(received)) < 300:
                received.extend(int(p) for p in await payloads(receiver, 1))

        collecting = asyncio.create_task(collect())
        for start_at in range(0, 300, 50):
            tasks = [
                asyncio.create_task(sender.publish("t", b"%d" % n, qos=2))
                for n in range(start_at, start_at + 50)
            ]
            await until(lambda: bool(sender._session._sent))
            cut(sender)
            await asyncio.gather(*tasks)
        await collecting
        assert sorted(received) == list(range(300))  # QoS 2: none lost, none twice


@in_loop
async def test_a_message_withdrawn_in_time_is_never_sent(start: Start) -> None:
    mosquitto = start(OPEN)
    states = States()
    options = MqttOptions(mosquitto.url, max_reconnect_delay=0.1, max_outgoing=1)
    async with MqttTransport(options, on_state=states) as transport:
        mosquitto.kill()
        await states.wait(False)
        withdrawn = transport.publish("t/1", b"withdrawn", retain=True)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(withdrawn, 0.01)
        mosquitto.start()
        await states.wait(True)
        await transport.publish("t/2", b"sent", retain=True)  # its place is free again
        await transport.subscribe("t/#")
        assert await payloads(transport, 1) == [b"sent"]


@in_loop
async def test_a_frozen_broker_is_noticed_and_does_not_hang_closing(start: Start) -> None:
    mosquitto = start(OPEN)
    states = States()
    transport = MqttTransport(MqttOptions(mosquitto.url, keepalive=1), on_state=states)
    other = MqttTransport(MqttOptions(mosquitto.url))
    async with transport, other:
        mosquitto.signal(signal.SIGSTOP)
        await states.wait(False)
        assert "nothing heard" in states.reasons[-1]


# What is bounded


@in_loop
async def test_publishers_wait_while_the_broker_does_not_answer(start: Start) -> None:
    mosquitto = start(OPEN)
    options = MqttOptions(mosquitto.url, max_outgoing=8)
    async with MqttTransport(options) as sender, MqttTransport(options) as receiver:
        await receiver.subscribe("t")
        mosquitto.signal(signal.SIGSTOP)
        tasks = [asyncio.create_task(sender.publish("t", b"%d" % n)) for n in range(50)]
        session = sender._session
        await until(lambda: len(session._sent) == 8)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(session._sent) + len(session._waiting) == 8
        assert not any(task.done() for task in tasks)
        mosquitto.signal(signal.SIGCONT)
        assert await payloads(receiver, 50) == [b"%d" % n for n in range(50)]
        await asyncio.gather(*tasks)


@in_loop
async def test_qos_0_waits_for_the_network_too(start: Start) -> None:
    mosquitto = start(OPEN, "max_queued_messages 0")
    async with MqttTransport(MqttOptions(mosquitto.url)) as sender:
        mosquitto.signal(signal.SIGSTOP)
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await sender.publish("t", bytes(100_000), qos=0)
                sent += 1

        flooding = asyncio.create_task(flood())
        link = sender._session.link
        assert link is not None
        await until(lambda: not link._writable.is_set())
        before = sent
        for _ in range(100):
            await asyncio.sleep(0)
        assert sent <= before + 1
        assert link._transport.get_write_buffer_size() < 1 << 20
        flooding.cancel()
        # and closing does not wait for it


@BOTH
@pytest.mark.parametrize("qos", [0, 1])
@in_loop
async def test_reading_stops_while_nobody_receives(start: Start, version: int, qos: int) -> None:
    mosquitto = start(OPEN, "max_queued_messages 0", "max_inflight_messages 0")
    options = MqttOptions(mosquitto.url, version=version, max_incoming=16)
    async with MqttTransport(options) as receiver, MqttTransport(options) as sender:
        await receiver.subscribe("t", qos=qos)
        messages = [n.to_bytes(2, "big") + bytes(20_000) for n in range(2000)]
        publishing = asyncio.gather(*(sender.publish("t", m, qos=qos) for m in messages))
        link = receiver._session.link
        assert link is not None
        await until(lambda: not link._reading)
        await publishing
        assert len(receiver._session.inbox) <= 16 + (256 << 10) // 20_000 + 1
        assert await payloads(receiver, 2000) == messages


@BOTH
@in_loop
async def test_whoever_answers_while_receiving_is_never_stuck(start: Start, version: int) -> None:
    mosquitto = start(OPEN, "max_queued_messages 0")
    options = MqttOptions(mosquitto.url, version=version, max_incoming=16)
    async with MqttTransport(options) as receiver, MqttTransport(options) as sender:
        await receiver.subscribe("question", qos=0)
        for n in range(20_000):
            await sender.publish("question", n.to_bytes(2, "big"), qos=0)
        answered = 0
        while answered < 20_000:
            answered += len(await receiver.receive())
            await receiver.publish("answer", b"")
        assert receiver.dropped == 0


@BOTH
@pytest.mark.parametrize("qos", [0, 1, 2])
@in_loop
async def test_a_message_that_is_too_large_stops_nobody(
    start: Start, version: int, qos: int
) -> None:
    mosquitto = start(OPEN)
    options = MqttOptions(mosquitto.url, version=version, max_packet=10_000)
    async with (
        MqttTransport(MqttOptions(mosquitto.url)) as sender,
        MqttTransport(options) as receiver,
    ):
        await sender.publish("t", bytes(2_000_00), qos=qos, retain=True)
        await receiver.subscribe("t", qos=qos)
        await sender.publish("t", bytes(900_000), qos=qos)
        for _ in range(30):  # more than the broker sends unacknowledged
            await sender.publish("t", bytes(20_000), qos=qos)
        await sender.publish("t", b"small", qos=qos)
        assert await payloads(receiver, 1) == [b"small"]
        assert receiver.dropped == (0 if version == 5 else 32)
        with pytest.raises(InvalidInputError):
            await receiver.publish("t", bytes(10_000), qos=qos)


@in_loop
async def test_a_broken_callback_breaks_nothing(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(connected: bool, reason: str) -> None:
        raise RuntimeError("broken")

    mosquitto = start(OPEN)
    async with MqttTransport(MqttOptions(mosquitto.url), on_state=broken) as transport:
        await transport.publish("t", b"x")
    assert "on_state failed" in caplog.text
