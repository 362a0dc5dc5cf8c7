"""Who takes part, and where everything stands."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from .broker import EmbeddedBroker, PlainClient
from .devices import Device

LINE = "plant/line1/"
"""Readings and set-points are on topics below it; the controller listens to all of them."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The broker, a client of it that is no device, and three devices."""

    folder: Path
    broker: EmbeddedBroker
    outsider: PlainClient
    sensor: Device
    gauge: Device
    controller: Device


@contextlib.asynccontextmanager
async def set_stage(folder: Path) -> AsyncIterator[Stage]:
    """Starts the broker and makes the devices, with their state in `folder`."""
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(EmbeddedBroker())
        outsider = await stack.enter_async_context(PlainClient(broker.url))
        devices = []
        for name in ("sensor", "gauge", "controller"):
            devices.append(Device(folder, name))
            stack.callback(devices[-1].close)
        yield Stage(folder, broker, outsider, *devices)
