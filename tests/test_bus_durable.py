"""The inbox on a bus: nothing that was acknowledged is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers import Start, until
from devices import Pair, events
from pqc_iiot import (
    Message,
    Node,
    Policy,
    TransportError,
)
from pqc_iiot.transports.bus import Bus, Listening
from pqc_iiot.transports.memory import MemoryBroker
from test_bus import in_loop
from zygote import entries

TOPIC = "line1/temp"


async def take(messages: Listening, count: int) -> list[Message]:
    """The next ones; the last is not acknowledged yet."""
    return [await anext(messages) for _ in range(count)]


def text(messages: list[Message]) -> list[bytes]:
    return [message.payload for message in messages]


async def publish(broker: MemoryBroker, frames: list[bytes], topic: str = TOPIC) -> None:
    async with broker.client() as client:
        for frame in frames:
            await client.publish(topic, frame)


@in_loop
async def test_the_broker_hears_of_it_once_it_is_on_disk(pair: Pair) -> None:
    broker = MemoryBroker()
    async with (
        Bus(pair.plc, broker.client("plc")) as bus,
        bus.listen("line1/#", durable=True) as messages,
    ):
        await publish(broker, [pair.frame(b"1"), pair.frame(b"2")])
        await until(lambda: len(pair.plc.inbox) == 2)
        await until(lambda: not broker.sessions["plc"].unacked)  # nobody has taken any
        one = await anext(messages)
        assert text(pair.plc.inbox.messages()) == [b"1", b"2"]
        two = await anext(messages)
        assert text([one, two]) == [b"1", b"2"]
        assert pair.plc.inbox.messages() == [two]


@in_loop
async def test_what_was_not_taken_comes_again_and_first(pair: Pair) -> None:
    broker = MemoryBroker()
    frames = [pair.frame(b"%d" % number) for number in range(4)]
    async with Bus(pair.plc, broker.client("plc")) as bus:
        async with bus.listen("line1/#", durable=True) as messages:
            await publish(broker, frames[:3])
            _, one = await take(messages, 2)
        async with bus.listen("line1/#", durable=True) as messages:
            assert (await anext(messages)).id == one.id
    pair.reopen()
    await publish(broker, [*frames[:3], frames[3]])  # a replay of everything, and a new one
    async with (
        Bus(pair.plc, broker.client("plc")) as bus,
        bus.listen("line1/#", durable=True) as messages,
    ):
        again = await take(messages, 3)
        assert text(again) == [b"1", b"2", b"3"]
        assert again[0].id == one.id
        await bus.acknowledge(*again)
        assert len(pair.plc.inbox) == 0
    assert pair.plc.status().queues.inbox == 0


@in_loop
async def test_what_was_taken_is_acknowledged_for_good_a_moment_later(pair: Pair) -> None:
    broker = MemoryBroker()
    async with (
        Bus(pair.plc, broker.client()) as bus,
        bus.listen("line1/#", durable=True) as messages,
    ):
        await publish(broker, [pair.frame(b"1"), pair.frame(b"2")])
        await until(lambda: len(pair.plc.inbox) == 2)
        await take(messages, 2)
        before = pair.plc.status().queues.commits
        await until(lambda: pair.plc.status().queues.commits > before)


@in_loop
async def test_each_listener_gets_it_and_the_last_one_acknowledges(pair: Pair) -> None:
    broker = MemoryBroker()
    async with (
        Bus(pair.plc, broker.client()) as bus,
        bus.listen("line1/#", durable=True) as one,
        bus.listen("+/temp", durable=True) as two,
        bus.listen("#") as volatile,
    ):
        frames = [pair.frame(b"1"), pair.frame(b"2")]
        await publish(broker, frames)
        assert text(await take(one, 2)) == [b"1", b"2"]
        assert len(pair.plc.inbox) == 2
        assert text(await take(two, 2)) == [b"1", b"2"]
        assert len(pair.plc.inbox) == 1
        assert text(await take(volatile, 2)) == [b"1", b"2"]
        other = pair.frame(b"3", "line2/temp2")
        await publish(broker, [other], "line2/temp2")
        assert text(await take(volatile, 1)) == [b"3"]
        assert len(pair.plc.inbox) == 1  # nobody listens to that one durably


@in_loop
async def test_a_full_inbox_lets_the_network_wait(pair: Pair) -> None:
    pair.plc.policy = Policy(inbox_messages=2)
    broker = MemoryBroker()
    async with (
        Bus(pair.plc, broker.client("plc")) as bus,
        bus.listen("line1/#", durable=True) as messages,
    ):
        await publish(broker, [pair.frame(b"%d" % number) for number in range(2)])
        await until(lambda: len(pair.plc.inbox) == 2)
        await publish(broker, [pair.frame(b"%d" % number) for number in range(2, 9)])
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(broker.sessions["plc"].unacked) == 7
        assert text(await take(messages, 9)) == [b"%d" % number for number in range(9)]
        assert not broker.sessions["plc"].unacked


@in_loop
async def test_an_inbox_full_of_what_nobody_takes_is_told(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.plc.policy = Policy(inbox_messages=1)
    broker = MemoryBroker()
    async with Bus(pair.plc, broker.client("plc")) as bus, bus.listen("line1/#", durable=True):
        await publish(broker, [pair.frame(b"1")])
        await until(lambda: len(pair.plc.inbox) == 1)
    async with (
        Bus(pair.plc, broker.client("plc")) as bus,
        bus.listen("line2/#", durable=True),
    ):
        await until(lambda: "nobody here listens to" in caplog.text)
    async with (
        Bus(pair.plc, broker.client("plc")) as bus,
        bus.listen("line1/#", durable=True) as messages,
    ):
        assert text(await take(messages, 1)) == [b"1"]


@in_loop
async def test_a_closed_bus_ends_the_listener_after_what_waits(pair: Pair) -> None:
    broker = MemoryBroker()
    async with Bus(pair.plc, broker.client()) as bus:
        messages = bus.listen("line1/#", durable=True)
        await messages.ready()
        await publish(broker, [pair.frame(b"1")])
        await until(lambda: len(pair.plc.inbox) == 1)
        await until(lambda: bool(messages._held))  # type: ignore[attr-defined]
    assert text([await anext(messages)]) == [b"1"]
    with pytest.raises(TransportError):
        await anext(messages)
    await bus.aclose()  # idempotent


# With a real broker, and SIGKILL


@pytest.fixture
def receiver(pair: Pair, tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_receiver_killed_again_and_again_gets_everything_once(
    start: Start, pair: Pair, tmp_path: Path, receiver: list[subprocess.Popen[bytes]]
) -> None:
    total, kills = 300, 5
    rng = random.Random(5)
    broker, journal = start(), tmp_path / "journal"
    pair.plc.close()
    program = Path(__file__).with_name("durable_receiver.py")
    command = [sys.executable, *map(str, (program, tmp_path / "plc", broker.url, journal))]

    def done() -> int:
        return sum(line[0] == "done" for line in entries(journal))

    async def send_and_kill() -> None:
        async with pair.sensor.mqtt(broker.url) as bus:
            for life in range(kills):
                some = done() + rng.randrange(1, 40)
                receiver.append(subprocess.Popen(command))
                while not entries(journal):  # before that nobody has subscribed
                    await bus.send("plc", "line1/first", b"first", durable=True)
                    await asyncio.sleep(0.05)
                for number in range(total * life // kills, total * (life + 1) // kills):
                    await bus.send("plc", TOPIC, b"%d" % number, durable=True)
                await until(lambda some=some: done() >= some)  # type: ignore[misc]
                receiver[-1].send_signal(signal.SIGKILL)
                receiver[-1].wait()
            receiver.append(subprocess.Popen(command))
            await bus.send("plc", TOPIC, b"%d" % total, durable=True)
            await bus.drained()
            await until(lambda: entries(journal)[-1][::2] == ["done", str(total)])

    asyncio.run(send_and_kill())
    receiver[-1].send_signal(signal.SIGKILL)
    receiver[-1].wait()
    finished: set[str] = set()
    given: dict[str, str] = {}
    for word, name, payload in entries(journal):
        assert name not in finished, "it came again after it was acknowledged"
        assert given.setdefault(name, payload) == payload, "another message under the same id"
        if word == "done":
            finished.add(name)
    numbers = [int(payload) for payload in given.values() if payload != "first"]
    assert numbers == list(range(total + 1))
    with Node.open(tmp_path / "plc") as plc:
        assert len(plc.inbox) == 0
        assert not [event for event in events(plc) if event.event == "refused_replay"]
