"""Sessions behind `bus.send`: set up by themselves, by policy, and never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from brokers import Start, until
from devices import Pair
from pqc_iiot import Message, Node, Policy, PolicyError, SessionUse, TransportError
from pqc_iiot.session import Fate, Report
from pqc_iiot.transports import Delivery
from pqc_iiot.transports.bus import Bus
from pqc_iiot.transports.memory import MemoryBroker, MemoryTransport
from pqc_iiot.transports.session_traffic import INBOXES
from test_bus import in_loop


class Seen:
    """An outsider who sees everything, and what it has to say."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport

    async def begin(self) -> None:
        await self.transport.connect()
        await self.transport.subscribe("#")

    async def on(self, topic: str) -> list[Delivery]:
        return [each for each in await self.transport.receive(1000) if each.topic == topic]


def use(node: Node, sessions: SessionUse) -> None:
    node.policy = replace(node.policy, sessions=sessions)


async def ready(node: Node, peer: str) -> None:
    await until(lambda: node.sessions.ready(peer))


@in_loop
async def test_the_first_message_is_a_frame_and_the_next_ones_are_packets(pair: Pair) -> None:
    broker = MemoryBroker()
    seen = Seen(broker.client())
    await seen.begin()
    reports: list[Report] = []
    async with (
        Bus(pair.plc, broker.client()) as plc,
        Bus(pair.sensor, broker.client(), on_report=reports.append) as sensor,
        plc.listen("line1/#") as messages,
    ):
        assert await sensor.send("plc", "line1/temp", b"first") == 0
        first = await anext(messages)
        assert (first.payload, first.session) == (b"first", b"")
        await ready(pair.sensor, "plc")
        assert await seen.on("line1/temp") != []
        tokens = [await sensor.send("plc", "line1/temp", b"%d" % n) for n in range(40)]
        assert all(tokens)
        second = await anext(messages)
        assert (second.payload, second.sender, second.context) == (b"0", "sensor", "line1/temp")
        assert second.session
        assert second.fingerprint == pair.sensor.bundle.fingerprint
        rest = [(await anext(messages)).payload for _ in range(39)]
        assert rest == [b"%d" % n for n in range(1, 40)]
        packets = await seen.on("line1/temp")
        assert [len(each.payload) for each in packets] == [24 + len(str(n)) for n in range(40)]
        await until(lambda: sum(len(each.tokens) for each in reports) == 40)
        assert {each.fate for each in reports} == {Fate.CONFIRMED}
    await seen.transport.aclose()


@in_loop
async def test_both_directions_use_one_session(pair: Pair) -> None:
    broker = MemoryBroker()
    async with (
        Bus(pair.plc, broker.client()) as plc,
        Bus(pair.sensor, broker.client()) as sensor,
        plc.listen("up") as up,
        sensor.listen("down") as down,
    ):
        await sensor.send("plc", "up", b"")
        await ready(pair.sensor, "plc")
        await sensor.send("plc", "up", b"")
        await anext(up)
        assert (await anext(up)).session
        await ready(pair.plc, "sensor")
        await plc.send("sensor", "down", b"x")
        assert (await anext(down)).session
        assert pair.plc.sessions.status().ready == pair.sensor.sessions.status().ready == 1


@in_loop
async def test_never_means_frames_only_and_nobody_begins(pair: Pair) -> None:
    broker = MemoryBroker()
    seen = Seen(broker.client())
    await seen.begin()
    use(pair.sensor, SessionUse.NEVER)
    async with (
        Bus(pair.plc, broker.client()) as plc,
        Bus(pair.sensor, broker.client()) as sensor,
        plc.listen("up") as messages,
        sensor.listen("down") as other,
    ):
        for _ in range(3):
            assert await sensor.send("plc", "up", b"") == 0
            assert not (await anext(messages)).session
        await plc.send("sensor", "down", b"")  # begins, and is not answered
        await anext(other)
        assert pair.sensor.sessions.status().known == 0
        inbox = INBOXES + pair.sensor.bundle.kid.hex()
        assert [each.topic for each in await seen.transport.receive(1000)].count(inbox) == 1
    await seen.transport.aclose()


@in_loop
async def test_always_waits_for_the_session_and_sends_no_frame(pair: Pair) -> None:
    broker = MemoryBroker()
    use(pair.sensor, SessionUse.ALWAYS)
    async with (
        Bus(pair.sensor, broker.client()) as sensor,
        Bus(pair.plc, broker.client()) as plc,
        plc.listen("up") as messages,
    ):
        assert await sensor.send("plc", "up", b"x") > 0
        message = await anext(messages)
        assert (message.payload, bool(message.session)) == (b"x", True)
        with pytest.raises(PolicyError, match="retained"):
            await sensor.send("plc", "up", b"x", retain=True)


@in_loop
async def test_always_without_an_answer_is_an_error(pair: Pair) -> None:
    broker = MemoryBroker()
    use(pair.sensor, SessionUse.ALWAYS)
    limits = pair.sensor.sessions._sessions.limits
    pair.sensor.sessions._sessions.limits = replace(limits, give_up=0.05)
    async with Bus(pair.sensor, broker.client()) as sensor:
        with pytest.raises(TransportError, match="no session with plc"):
            await sensor.send("plc", "up", b"x")


@in_loop
async def test_what_is_to_be_retained_is_a_frame(pair: Pair) -> None:
    broker = MemoryBroker()
    async with (
        Bus(pair.plc, broker.client()) as plc,
        Bus(pair.sensor, broker.client()) as sensor,
        plc.listen("up") as messages,
    ):
        await sensor.send("plc", "up", b"1")
        await ready(pair.sensor, "plc")
        assert await sensor.send("plc", "up", b"2", retain=True) == 0
        assert [(await anext(messages)).session for _ in range(2)] == [b"", b""]


@in_loop
async def test_revoked_in_mid_session_nothing_passes_either_way(pair: Pair) -> None:
    broker = MemoryBroker()
    refused: list[str] = []
    async with (
        Bus(pair.plc, broker.client(), lambda _, error: refused.append(error.code)) as plc,
        Bus(pair.sensor, broker.client()) as sensor,
        plc.listen("up") as messages,
    ):
        await sensor.send("plc", "up", b"1")
        await anext(messages)
        await ready(pair.sensor, "plc")
        pair.plc.peers.revoke("sensor")
        assert pair.plc.sessions.status().known == 0
        assert await sensor.send("plc", "up", b"2") > 0
        await until(lambda: refused != [])
        assert messages.depth() == 0
        with pytest.raises(Exception, match="revoked"):
            await plc.send("sensor", "down", b"3")


@in_loop
async def test_new_keys_get_a_new_inbox_and_a_new_session(pair: Pair) -> None:
    broker = MemoryBroker()
    async with (
        Bus(pair.plc, broker.client()) as plc,
        Bus(pair.sensor, broker.client()) as sensor,
        plc.listen("up") as messages,
    ):
        await sensor.send("plc", "up", b"1")
        await anext(messages)
        await ready(pair.sensor, "plc")
        await sensor.watch_announcements()
        pair.plc.rotate()
        await plc.announce()
        await until(lambda: pair.sensor.peers.get("plc").bundle.serial == 2)
        await until(lambda: pair.sensor.sessions.status().ready == 0)
        await sensor.send("plc", "up", b"2")
        assert (await anext(messages)).payload == b"2"
        await ready(pair.sensor, "plc")
        await sensor.send("plc", "up", b"3")
        assert (await anext(messages)).session


@in_loop
async def test_a_second_bus_of_a_node_sends_frames(pair: Pair) -> None:
    broker = MemoryBroker()
    async with (
        Bus(pair.sensor, broker.client()),
        Bus(pair.sensor, broker.client()) as second,
        Bus(pair.plc, broker.client()) as plc,
        plc.listen("up") as messages,
    ):
        for _ in range(2):
            assert await second.send("plc", "up", b"x") == 0
            assert not (await anext(messages)).session
        use(pair.sensor, SessionUse.ALWAYS)
        with pytest.raises(TransportError, match="no sessions on this connection"):
            await second.send("plc", "up", b"x")


@in_loop
async def test_many_senders_at_once_lose_nothing_to_their_own_order(
    pair: Pair, start: Start
) -> None:
    mosquitto = start("allow_anonymous true", "max_queued_messages 0")
    reports: list[Report] = []
    async with (
        pair.plc.mqtt(mosquitto.url) as plc,
        pair.sensor.mqtt(mosquitto.url) as sensor,
        plc.listen("up/#", qos=1) as messages,
    ):
        sensor.on_report = reports.append
        await sensor.send("plc", "up/0", b"")
        await anext(messages)
        await ready(pair.sensor, "plc")
        count = 2000
        sends = (sensor.send("plc", f"up/{n % 7}", b"%d" % n) for n in range(count))
        sending = asyncio.gather(*sends)
        got = [(await anext(messages)).payload for _ in range(count)]
        assert sorted(map(int, got)) == list(range(count))
        await sending
        await until(lambda: sum(len(each.tokens) for each in reports) == count)
        assert {each.fate for each in reports} == {Fate.CONFIRMED}


@in_loop
async def test_a_peer_that_lost_its_keys_is_found_out_and_gets_frames_meanwhile(
    pair: Pair,
) -> None:
    broker = MemoryBroker()
    async with Bus(pair.sensor, broker.client()) as sensor:
        async with Bus(pair.plc, broker.client()) as plc, plc.listen("up") as messages:
            await sensor.send("plc", "up", b"1")
            await anext(messages)
            await ready(pair.sensor, "plc")
        sessions = pair.sensor.sessions._sessions
        sessions.limits = replace(sessions.limits, answer_within=0.01, confirm_within=0.01)
        for link in sessions._links.values():
            assert link.current is not None
            link._limits = link.current.limits = sessions.limits
        pair.plc.sessions.close()
        async with Bus(pair.plc, broker.client()) as plc, plc.listen("up") as messages:
            assert await sensor.send("plc", "up", b"lost") > 0
            while True:
                await sensor.send("plc", "up", b"again")
                if messages.depth():
                    break
                await asyncio.sleep(0.001)
            assert (await anext(messages)).payload == b"again"


def test_policies_are_stored_and_old_ones_read() -> None:
    policy = Policy(sessions=SessionUse.ALWAYS, session_window=64)
    assert Policy.decode(policy.encode()) == policy


@in_loop
async def test_packets_wait_in_the_inbox_and_their_sender_hears_of_them_then(pair: Pair) -> None:
    broker = MemoryBroker()
    reports: list[Report] = []
    sessions = pair.plc.sessions._sessions
    sessions.limits = replace(sessions.limits, confirm_every=1)
    async with (
        Bus(pair.plc, broker.client()) as plc,
        Bus(pair.sensor, broker.client(), on_report=reports.append) as sensor,
    ):
        messages = plc.listen("up", durable=True)
        await messages.ready()
        await sensor.send("plc", "up", b"frame")
        await ready(pair.sensor, "plc")
        put, loop = pair.plc.inbox.put, asyncio.get_running_loop()
        stored: list[int] = []

        async def a_timer_comes() -> None:
            assert plc._sessions is not None
            plc._sessions.flush()
            for _ in range(20):
                await asyncio.sleep(0)

        def late(messages: Iterable[Message]) -> None:
            asyncio.run_coroutine_threadsafe(a_timer_comes(), loop).result()
            assert all(each.fate is not Fate.CONFIRMED for each in reports)
            stored.append(len(found := list(messages)))
            put(found)

        pair.plc.inbox.put = late  # type: ignore[method-assign]
        assert await sensor.send("plc", "up", b"packet") > 0
        await until(lambda: any(each.fate is Fate.CONFIRMED for each in reports))
        assert stored == [1]
    waiting = {each.payload: each.id for each in pair.plc.inbox.messages()}
    assert waiting.keys() == {b"frame", b"packet"}
    pair.reopen()
    assert {each.payload: each.id for each in pair.plc.inbox.messages()} == waiting


@in_loop
async def test_always_lets_nothing_wait_on_disk(pair: Pair) -> None:
    broker = MemoryBroker()
    use(pair.sensor, SessionUse.ALWAYS)
    async with Bus(pair.sensor, broker.client()) as sensor:
        with pytest.raises(PolicyError, match="on disk"):
            await sensor.send("plc", "up", b"x", durable=True)
    assert len(pair.sensor.outbox) == 0
