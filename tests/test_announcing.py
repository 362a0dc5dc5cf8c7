"""Two copies of one folder on a real broker, and what the broker itself may try."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers import Start, until
from devices import copy, events, make
from pqc_iiot import Node
from pqc_iiot.transports import announcing
from pqc_iiot.transports.announcing import ANNOUNCEMENTS, PRESENCE, shown
from pqc_iiot.transports.memory import MemoryBroker
from pqc_iiot.transports.mqtt import MqttOptions, MqttTransport
from test_bus import in_loop

OPEN = "allow_anonymous true"
OWN = PRESENCE + "plc"


@pytest.fixture
def folder(devices: Path, tmp_path: Path) -> Path:
    copy(devices, tmp_path, "plc")
    return tmp_path / "plc"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Whoever waits in vain hangs."""
    if "hands_nothing_out" not in request.node.name:
        monkeypatch.setattr(announcing, "WAIT", 1e6)


@pytest.fixture
def both(folder: Path, tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """The device and its clone, both alive."""
    shutil.copytree(folder, tmp_path / "clone")
    with Node.open(folder) as original, Node.open(tmp_path / "clone") as clone:
        yield original, clone


def alarms(node: Node) -> int:
    return [event.event for event in events(node)].count("refused_cloned_identity")


async def put(url: str, topic: str, payload: bytes) -> None:
    async with MqttTransport(MqttOptions.from_url(url)) as attacker:
        await attacker.publish(topic, payload, retain=True)


@in_loop
async def test_a_running_original_hears_of_its_clone(
    start: Start, both: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    original, clone = both
    url = start().url
    async with original.mqtt(url) as here:
        await here.announce()
        assert alarms(original) == 0
        async with clone.mqtt(url) as there:
            await there.announce()
            assert alarms(clone) == 1  # when it returns, what was there has been looked at
            await until(lambda: original.status().cloned)
            assert alarms(original) == 1
            await there.announce()
            await here.announce()
        assert alarms(original) == alarms(clone) == 1
    assert [r.levelno for r in caplog.records if "elsewhere" in r.message] == [logging.ERROR] * 2


@in_loop
async def test_a_clone_is_noticed_by_what_the_broker_keeps(
    start: Start, both: tuple[Node, Node]
) -> None:
    """They are never there at the same time, and the broker was started anew in between."""
    original, clone = both
    broker = start()
    async with clone.mqtt(broker.url) as there:
        await there.announce()
    broker.stop()
    broker.start()
    async with original.mqtt(broker.url) as here:
        await here.announce()
        assert alarms(original) == 1


@in_loop
async def test_who_only_watches_notices_it_and_publishes_nothing(
    start: Start, both: tuple[Node, Node]
) -> None:
    original, clone = both
    url = start().url
    async with MqttTransport(MqttOptions.from_url(url)) as anybody:
        await anybody.subscribe("#")
        async with original.mqtt(url) as here:
            await here.watch_announcements()
            async with clone.mqtt(url) as there:
                await there.announce()
            await until(lambda: original.status().cloned)
        await anybody.publish("end", b"")
        topics = []
        while "end" not in topics:
            topics += [delivery.topic for delivery in await anybody.receive()]
    assert topics.count(OWN) == topics.count(ANNOUNCEMENTS + "plc") == 1  # the clone's


@in_loop
async def test_who_does_not_announce_shows_nothing(start: Start, folder: Path) -> None:
    url = start().url
    with Node.open(folder) as node:
        async with node.mqtt(url) as bus, bus.listen("line1/#"):
            await bus.send("sensor", "line1/x", b"1")
        async with MqttTransport(MqttOptions.from_url(url)) as anybody:
            assert await shown(anybody, OWN, within=0.2) == {OWN: None}
    assert not (folder / "presence").exists()


@in_loop
async def test_a_broker_can_raise_no_false_alarm(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    """Whatever it keeps from before, makes up, or takes from other devices."""
    url = start().url
    old = []
    for _ in range(3):
        with Node.open(folder) as node:
            old.append(node.presence.record())
    (tmp_path / "other").mkdir(0o700)
    with make(tmp_path / "other", "plc") as impostor:
        others = impostor.presence.record()
    bent = bytearray(old[-1])
    bent[-200] ^= 1
    with Node.open(folder) as node:
        for data in (*old, others, bytes(bent), node.bundle.encoded, b"junk", bytes(1 << 17)):
            await put(url, OWN, data)
            async with node.mqtt(url) as bus:
                await bus.announce()  # with this behind it
                await put(url, OWN, data)  # and while it listens
                await bus.announce()
            assert alarms(node) == 0
        assert not node.status().cloned
    with Node.open(folder) as node:
        async with node.mqtt(url) as bus:
            await bus.announce()
        assert alarms(node) == 0


@in_loop
async def test_only_what_is_retained_counts_as_shown() -> None:
    """What somebody puts in between while we look does not."""
    broker = MemoryBroker()
    async with broker.client() as attacker, broker.client() as looking:
        await attacker.publish(OWN, b"kept", retain=True)
        found = asyncio.create_task(shown(looking, OWN, "nothing", within=0.2))
        await until(lambda: any(OWN in each.filters for each in broker.sessions.values()))
        await attacker.publish(OWN, b"put in between")
        assert await found == {OWN: b"kept", "nothing": None}


@in_loop
async def test_a_broker_that_hands_nothing_out_holds_nothing_up(
    start: Start, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acl = tmp_path / "acl"
    acl.write_text(f"topic read line1/#\ntopic write #\ntopic deny {PRESENCE}#\n")
    url = start(OPEN, f"acl_file {acl}").url
    with Node.open(folder) as node:
        async with node.mqtt(url) as bus:
            await asyncio.gather(bus.announce(), bus.announce())
            await bus.send("sensor", "line1/x", b"1")
    assert "nobody can see here" in caplog.text
