"""A node on a transport: protected messages out and in, and nothing decided here.

Frames that are refused are acknowledged and gone (the node has logged why): one junk
message, retained or not, never stops a listener. Messages are acknowledged to the broker
after their numbers are durable and the application has taken them and come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import TypeVar

from ..errors import PqcIiotError, TransportError
from ..node import Incoming, Message, Node
from . import Delivery, Transport, topic_matches

ANNOUNCEMENTS = "pqc-iiot/bundle/"
"""Topics on which devices show their bundles, followed by the device's name."""

QUEUE = 256
"""Messages that wait for one listener before the network has to wait for it."""

log = logging.getLogger("pqc_iiot.transports.bus")
_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class _Handover:
    """A message on its way to the listeners; acknowledged when the last has taken it."""

    message: Message
    delivery: Delivery
    waiting: int

    def taken(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self.delivery.ack()


@dataclass(slots=True, eq=False)
class _Listener:
    filters: tuple[str, ...]
    queue: asyncio.Queue[_Handover | None] = field(default_factory=lambda: asyncio.Queue(QUEUE))

    def wants(self, topic: str) -> bool:
        return any(topic_matches(topic_filter, topic) for topic_filter in self.filters)


class Bus:
    """Use it as an asynchronous context manager, in one event loop."""

    def __init__(self, node: Node, transport: Transport) -> None:
        self._node, self._transport = node, transport
        # One thread: the node takes turns anyway, and the event loop never waits for a disk.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="pqc-iiot-bus")
        self._listeners: list[_Listener] = []
        self._pump: asyncio.Task[None] | None = None
        self._announcements = False
        self._failure: PqcIiotError | None = None

    async def __aenter__(self) -> Bus:
        await self._transport.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection; listeners end. Idempotent."""
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        await self._transport.aclose()
        self._fail(TransportError("the bus was closed"))
        self._worker.shutdown(wait=False)

    async def send(
        self, to: str, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        """Protects `payload` for the peer named `to` and publishes it on `topic`, to which
        it is bound. Errors as `Node.seal`; `TransportError` where the broker refuses it."""
        frame = await self._run(partial(self._node.seal, payload, to=to, context=topic))
        await self._transport.publish(topic, frame, qos=qos, retain=retain)

    async def listen(self, *filters: str, qos: int = 1) -> AsyncGenerator[Message, None]:
        """Messages from topics that match a filter, verified, fresh, from trusted peers.

        A message counts as taken when the next one is asked for. Raises `TransportError`
        when the bus is closed, `StateError` where the state cannot be made durable.
        """
        listener = _Listener(filters)
        self._listeners.append(listener)
        try:
            for topic_filter in filters:
                await self._transport.subscribe(topic_filter, qos=qos)
            self._start()
            while True:
                if self._failure is not None and listener.queue.empty():
                    raise self._failure
                item = await listener.queue.get()
                if item is None:
                    continue
                yield item.message
                item.taken()
        finally:
            self._listeners.remove(listener)

    async def announce(self) -> None:
        """Shows this device's bundle to all, retained. It makes nobody trust it."""
        bundle = self._node.bundle
        await self._transport.publish(ANNOUNCEMENTS + bundle.name, bundle.encoded, retain=True)

    async def watch_announcements(self) -> None:
        """Takes in bundles that others show: they wait for approval (or are pinned under
        TOFU), and signed successors of trusted keys replace them."""
        self._announcements = True
        await self._transport.subscribe(ANNOUNCEMENTS + "+")
        self._start()

    def _start(self) -> None:
        if self._pump is None:
            self._pump = asyncio.create_task(self._receive(), name="pqc-iiot-bus")

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def _receive(self) -> None:
        try:
            while True:
                deliveries = await self._transport.receive()
                frames = [d for d in deliveries if not self._is_announcement(d)]
                for delivery in deliveries:
                    if self._is_announcement(delivery):
                        await self._take_bundle(delivery)
                if frames:
                    await self._take_frames(frames)
        except PqcIiotError as error:
            self._fail(error)

    def _is_announcement(self, delivery: Delivery) -> bool:
        return self._announcements and delivery.topic.startswith(ANNOUNCEMENTS)

    async def _take_bundle(self, delivery: Delivery) -> None:
        own = self._node.bundle.encoded
        try:
            if delivery.payload != own:
                await self._run(partial(self._node.peers.add, delivery.payload, transport="mqtt"))
        except PqcIiotError as error:
            log.warning("an announced bundle was refused: %s", error)
        delivery.ack()

    async def _take_frames(self, deliveries: list[Delivery]) -> None:
        incoming = [Incoming(d.payload, d.topic, d.retained) for d in deliveries]
        results = await self._run(partial(self._node.open_many, incoming))
        for delivery, result in zip(deliveries, results, strict=True):
            if isinstance(result, PqcIiotError):
                log.info("a frame on %r was refused: %s", delivery.topic, result)
                delivery.ack()
                continue
            listeners = [each for each in self._listeners if each.wants(delivery.topic)]
            handover = _Handover(result, delivery, len(listeners))
            for listener in listeners:
                await listener.queue.put(handover)
            if not listeners:
                log.warning("nobody listens on %r any more", delivery.topic)
                delivery.ack()

    def _fail(self, error: PqcIiotError) -> None:
        self._failure = self._failure or error
        for listener in self._listeners:
            # What waits is handed over first; this only wakes a listener with nothing.
            with contextlib.suppress(asyncio.QueueFull):
                listener.queue.put_nowait(None)


def mqtt_bus(node: Node, url: str, **options: str | int | bool) -> Bus:
    """A bus over MQTT; see `Node.mqtt`."""
    from .mqtt import MqttTransport
    from .mqtt_options import MqttOptions

    return Bus(node, MqttTransport(MqttOptions.from_url(url, **options)))
