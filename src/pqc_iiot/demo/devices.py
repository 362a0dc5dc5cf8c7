"""The devices of the demonstration: ordinary nodes, and windows to look into them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..audit import AuditRecord, follow
from ..errors import PqcIiotError, TransportError
from ..message import Incoming, Message
from ..node import Node
from ..policy import Policy, SessionUse
from ..starting import create_state, load_state
from ..state import State
from ..suites import DEFAULT_SUITE
from ..trail import AUDIT_FILE
from ..transports.bus import Bus
from .arrivals import Arrivals
from .broker import EmbeddedBroker

PROVIDER = "software:insecure-plaintext-keys"
"""A passphrase would have to lie beside the keys here, and protect nothing."""

_MQTT_VERSION = 4  # 3.1.1, which is what the embedded broker speaks


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a node said of one frame that reached it."""

    topic: str
    frame: bytes
    result: Message | PqcIiotError


class WatchedNode(Node):
    """A node that also tells what it made of each frame; it decides nothing else."""

    def __init__(self, state: State, tell: Callable[[Verdict], None]) -> None:
        super().__init__(state)
        self._tell = tell

    def open_many(
        self, frames: Iterable[Incoming], *, durable: bool = False
    ) -> list[Message | PqcIiotError]:
        """See `Node.open_many`."""
        incoming = list(frames)
        results = super().open_many(incoming, durable=durable)
        for each, result in zip(incoming, results, strict=True):
            self._tell(Verdict(each.context, each.frame, result))
        return results


class Device:
    """A device, what it said of frames, and its audit log as a monitoring system reads it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self.name = name
        self.log = self._folder / AUDIT_FILE
        self.verdicts: Arrivals[Verdict] = Arrivals()
        self.records: Arrivals[AuditRecord] = Arrivals()
        self.received: Arrivals[Message] = Arrivals()
        self._loop = asyncio.get_running_loop()
        # Every message a frame of its own: that is what is looked at and attacked here.
        policy = Policy(sessions=SessionUse.NEVER)
        state = create_state(self._folder, name, DEFAULT_SUITE, PROVIDER, policy, None)
        self.node = WatchedNode(state, self._tell)
        self._stop = threading.Event()
        self._follower = threading.Thread(target=self._follow, name=f"{name}-log", daemon=True)
        self._follower.start()

    def restart(self) -> None:
        """Closes the device and opens it again, from what it has on disk."""
        self.node.close()
        self.node = WatchedNode(load_state(self._folder, None), self._tell)

    @contextlib.asynccontextmanager
    async def connected(self, broker: EmbeddedBroker, *filters: str) -> AsyncIterator[Bus]:
        """The device on the broker. It takes in announced bundles, and listens to
        `filters`, where there are any, into `received`."""
        async with self.node.mqtt(broker.url, version=_MQTT_VERSION) as bus:
            since = len(broker.subscriptions.items)
            await bus.watch_announcements()
            listening = asyncio.create_task(self._listen(bus, filters)) if filters else None
            for topic_filter in filters:
                await broker.subscriptions.find(topic_filter.__eq__, since=since)
            yield bus
        if listening is not None:
            await listening

    async def _listen(self, bus: Bus, filters: tuple[str, ...]) -> None:
        with contextlib.suppress(TransportError):  # the end: the bus was closed
            async for message in bus.listen(*filters):
                self.received.add(message)

    def close(self) -> None:
        """Closes the device; its log is complete then."""
        self.node.close()
        self._stop.set()
        self._follower.join()

    def _tell(self, verdict: Verdict) -> None:
        self._loop.call_soon_threadsafe(self.verdicts.add, verdict)

    def _follow(self) -> None:
        for record in follow(self.log, n=1000, stop=self._stop, interval=0.01):
            self._loop.call_soon_threadsafe(self.records.add, record)
