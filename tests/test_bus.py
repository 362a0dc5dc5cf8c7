"""A node on a transport: what arrives, what is refused, and what never stops a listener."""

from __future__ import annotations

import asyncio
import functools
import warnings
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from brokers import TIME_LIMIT, Start, until
from pqc_iiot import Node, PeerState, Policy, TofuWarning, TransportError, Trust
from pqc_iiot.audit import tail
from pqc_iiot.trail import AUDIT_FILE
from pqc_iiot.transports.announcing import ANNOUNCEMENTS
from pqc_iiot.transports.bus import Bus, Listening
from pqc_iiot.transports.memory import MemoryBroker

PROVIDER = "software:insecure-plaintext-keys"


P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs an async test in its own event loop; it must leave no task behind."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def guarded() -> None:
            await asyncio.wait_for(test(*args, **kwargs), TIME_LIMIT)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(guarded())

    return run


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """A sensor and a controller that trust each other."""
    with (
        Node.create(tmp_path / "sensor", name="sensor", provider=PROVIDER) as sensor,
        Node.create(tmp_path / "plc", name="plc", provider=PROVIDER) as plc,
    ):
        sensor.peers.add_approved(plc.bundle)
        plc.peers.add_approved(sensor.bundle)
        yield sensor, plc


async def take(messages: Listening, count: int) -> list[bytes]:
    """The next payloads; the last message counts as taken, too."""
    taken: list[bytes] = []
    while len(taken) < count:
        taken.append((await anext(messages)).payload)
    return taken


def refusals(folder: Path, node: Node) -> list[str]:
    """The reasons in a device's log, in order."""
    assert node.audit.flush()
    return [record.reason for record in tail(folder / AUDIT_FILE, 100) if record.reason]


@in_loop
async def test_messages_arrive_with_everything_that_was_verified(
    nodes: tuple[Node, Node],
) -> None:
    sensor, plc = nodes
    broker = MemoryBroker()
    async with (
        Bus(plc, broker.client()) as there,
        Bus(sensor, broker.client()) as here,
        there.listen("line1/#") as messages,
    ):
        waiting = asyncio.ensure_future(anext(messages))
        await here.send("plc", "line1/setpoint", b"21.5")
        message = await waiting
        assert (message.sender, message.payload) == ("sensor", b"21.5")
        assert message.context == "line1/setpoint"
        assert message.fingerprint == sensor.bundle.fingerprint


@in_loop
async def test_junk_retained_or_not_never_stops_a_listener(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    sensor, plc = nodes
    broker = MemoryBroker()
    attacker = broker.client()
    await attacker.connect()
    await attacker.publish("line1/a", b"junk", retain=True)
    await attacker.publish("line1/b", b"\xd0\x83" * 900, retain=True)
    async with (
        Bus(plc, broker.client()) as there,
        Bus(sensor, broker.client()) as here,
        there.listen("line1/#") as messages,
    ):
        following = asyncio.ensure_future(anext(messages))
        await until(lambda: "invalid_frame" in refusals(tmp_path / "plc", plc))
        await attacker.publish("line1/a", b"")
        await here.send("plc", "line1/a", b"after the junk")
        assert (await following).payload == b"after the junk"
    await attacker.aclose()
    assert refusals(tmp_path / "plc", plc) == ["invalid_frame"] * 3


@in_loop
async def test_a_message_is_acknowledged_after_it_was_taken(nodes: tuple[Node, Node]) -> None:
    sensor, plc = nodes
    broker = MemoryBroker()
    async with (
        Bus(plc, broker.client("plc")) as there,
        Bus(sensor, broker.client()) as here,
        there.listen("t") as messages,
    ):
        waiting = asyncio.ensure_future(anext(messages))
        await here.send("plc", "t", b"1")
        await here.send("plc", "t", b"2")
        await waiting
        session = broker.sessions["plc"]
        assert len(session.unacked) == 2, "taken, but the next one was not asked for"
        await anext(messages)
        assert len(session.unacked) == 1


@in_loop
async def test_a_retained_message_that_comes_again_is_quiet_however_old(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    sensor, plc = nodes
    broker = MemoryBroker()
    async with Bus(sensor, broker.client()) as here:
        await here.send("plc", "t/kept", b"kept", retain=True)
        async with (
            Bus(plc, broker.client()) as there,
            there.listen("t/#") as messages,
        ):
            assert await take(messages, 1) == [b"kept"]
            for number in range(100):
                await here.send("plc", "t/other", b"%d" % number)
                await take(messages, 1)
        async with (
            Bus(plc, broker.client()) as there,
            there.listen("t/#") as messages,
        ):
            following = asyncio.ensure_future(anext(messages))
            await until(lambda: bool(refusals(tmp_path / "plc", plc)))
            await here.send("plc", "t/other", b"new")
            assert (await following).payload == b"new"
    assert refusals(tmp_path / "plc", plc) == ["duplicate"]


@in_loop
async def test_announcements_feed_the_pending_list_and_nothing_else(tmp_path: Path) -> None:
    broker = MemoryBroker()
    with (
        Node.create(tmp_path / "a", name="sensor", provider=PROVIDER) as sensor,
        Node.create(tmp_path / "b", name="plc", provider=PROVIDER) as plc,
    ):
        async with Bus(sensor, broker.client()) as here, Bus(plc, broker.client()) as there:
            await here.announce()
            await there.announce()
            attacker = broker.client()
            await attacker.connect()
            await attacker.publish(ANNOUNCEMENTS + "junk", b"no bundle", retain=True)
            await there.watch_announcements()
            await until(lambda: len(plc.peers.pending()) == 1)
            assert plc.peers.pending()[0].fingerprint == sensor.bundle.fingerprint
            assert plc.peers.list() == ()
            await attacker.aclose()


@in_loop
async def test_tofu_pins_what_is_announced_first_and_refuses_a_change(tmp_path: Path) -> None:
    broker = MemoryBroker()
    tofu = Policy(trust=Trust.TOFU)
    with (
        Node.create(tmp_path / "a", name="sensor", provider=PROVIDER) as sensor,
        Node.create(tmp_path / "c", name="sensor", provider=PROVIDER) as impostor,
        Node.create(tmp_path / "b", name="plc", provider=PROVIDER, policy=tofu) as plc,
    ):
        async with (
            Bus(sensor, broker.client()) as here,
            Bus(impostor, broker.client()) as other,
            Bus(plc, broker.client()) as there,
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TofuWarning)
                await here.announce()
                await there.watch_announcements()
                await until(lambda: bool(plc.peers.list()))
                await other.announce()
                await until(lambda: "peer_key_changed" in refusals(tmp_path / "b", plc))
            (peer,) = plc.peers.list()
            assert peer.state is PeerState.PINNED
            assert peer.fingerprint == sensor.bundle.fingerprint


@in_loop
async def test_closing_ends_listeners_and_senders(nodes: tuple[Node, Node]) -> None:
    _, plc = nodes
    bus = Bus(plc, MemoryBroker().client())
    async with bus:
        listening = asyncio.ensure_future(anext(bus.listen("t")))
        await until(lambda: bus._pump is not None)
    with pytest.raises(TransportError):
        await listening


@in_loop
async def test_over_a_real_broker_in_order_and_none_lost(
    start: Start, nodes: tuple[Node, Node]
) -> None:
    sensor, plc = nodes
    url = start().url
    async with (
        plc.mqtt(url) as there,
        sensor.mqtt(url) as here,
        there.listen("line/+", qos=1) as messages,
    ):
        following = asyncio.ensure_future(anext(messages))
        for number in range(200):
            await here.send("plc", "line/1", b"%d" % number)
        first = await following
        rest = await take(messages, 199)
        assert [first.payload, *rest] == [b"%d" % number for number in range(200)]
