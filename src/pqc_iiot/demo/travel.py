"""Second scene: readings of this machine go from the sensors to the controller."""

from __future__ import annotations

import json
import math
from collections import Counter
from contextlib import AsyncExitStack

from .. import envelope
from ..message import Message
from ..transports.bus import Bus
from .devices import Device
from .readings import Reading, read_all
from .report import Scene, Step, Trip
from .stage import LINE, Stage

TITLE = "Readings travel"

LEGIBLE = 6
"""Bytes that a frame and a reading must have in common to count as readable: by chance it
happens once in about a billion frames."""


async def travel(stage: Stage) -> Scene:
    """Every reading that this machine offers, one message each."""
    trips = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(stage.controller.connected(stage.broker, LINE + "#"))
        sensor = await stack.enter_async_context(stage.sensor.connected(stage.broker))
        gauge = await stack.enter_async_context(stage.gauge.connected(stage.broker))
        for name, reading in read_all().items():
            device, bus = (stage.gauge, gauge) if name == "uptime" else (stage.sensor, sensor)
            trips.append(await send(stage, device, bus, LINE + name, reading))
    count = len(trips)
    arrived = sum((trip.got, trip.got_from) == (trip.sent, trip.sensor) for trip in trips)
    run = max((trip.shared_run for trip in trips), default=0)
    steps = (
        Step(
            "readings arrive unchanged",
            f"{count} of {count}",
            f"{arrived} of {count}",
            arrived == count > 0,
        ),
        Step(
            "the broker can read none of them",
            f"no {LEGIBLE} bytes in common",
            f"{run} at most",
            run < LEGIBLE,
        ),
    )
    return Scene(TITLE, steps, trips=tuple(trips))


async def send(stage: Stage, device: Device, bus: Bus, topic: str, reading: Reading) -> Trip:
    """Sends one reading, and waits until broker and controller have shown it."""
    sent = json.dumps(reading)
    seen, received = len(stage.outsider.seen.items), len(stage.controller.received.items)
    await bus.send(stage.controller.name, topic, sent.encode())
    _, frame = await stage.outsider.seen.find(lambda each: each[0] == topic, since=seen)
    message = await stage.controller.received.find(since=received)
    return examine(topic, device.name, sent, frame, message)


def examine(topic: str, sensor: str, sent: str, frame: bytes, message: Message) -> Trip:
    """What can be said of one reading's way."""
    header = envelope.parse(frame)
    return Trip(
        topic=topic,
        sensor=sensor,
        sent=sent,
        frame=frame.hex(),
        frame_size=len(frame),
        entropy=round(entropy(frame), 2),
        shared_run=longest_shared_run(sent.encode(), frame),
        sender=header.sender.hex(),
        recipient=header.recipient.hex(),
        sequence=header.sequence,
        got=message.payload.decode(errors="replace"),
        got_from=message.sender,
    )


def entropy(data: bytes) -> float:
    """Shannon's, of the bytes as they are distributed: 0 to 8 bits per byte."""
    shares = (count / len(data) for count in Counter(data).values())
    return -sum(share * math.log2(share) for share in shares)


def longest_shared_run(needle: bytes, haystack: bytes) -> int:
    """Length in bytes of the longest piece of `needle` that stands in `haystack`."""
    longest = 0
    for end in range(1, len(needle) + 1):
        # A longer one that ends here can be longer by one at most.
        if needle[end - longest - 1 : end] in haystack:
            longest += 1
    return longest
