"""A node on a transport: protected messages out and in, and nothing decided here.

Frames that are refused are acknowledged and gone (the node has logged why): one junk
message, retained or not, never stops a listener. Messages are acknowledged to the broker
after their numbers are durable and the application has taken them and come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TypeVar

from ..errors import PqcIiotError, TransportError
from ..message import Incoming, Message
from ..node import Node
from ..outbox import Order
from . import Delivery, Transport, check_topic, topic_matches

ANNOUNCEMENTS = "pqc-iiot/bundle/"
"""Topics on which devices show their bundles, followed by the device's name."""

QUEUE = 256
"""Messages that wait for one listener before the network has to wait for it."""

FLUSH = 0.05
"""Seconds until what was taken or sent durably is so, where no other commit comes first."""

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


class Listening:
    """What `Bus.listen` returns: messages, one after the other, and when it has begun.

    An asynchronous iterator and context manager. Raises `TransportError` when the bus is
    closed, `StateError` where the state cannot be made durable.
    """

    def __init__(
        self, filters: tuple[str, ...], begin: Callable[[Listening], Awaitable[None]]
    ) -> None:
        self._filters, self._begin = filters, begin
        self._begun = False
        self._taking: _Handover | None = None
        self.queue: asyncio.Queue[_Handover | None] = asyncio.Queue(QUEUE)
        self.failure: PqcIiotError | None = None

    def wants(self, topic: str) -> bool:
        """Whether a filter selects this topic."""
        return any(topic_matches(topic_filter, topic) for topic_filter in self._filters)

    async def ready(self) -> None:
        """Returns when the broker has confirmed the subscriptions: from now on nothing is
        missed. The first message asked for waits for it, too."""
        if not self._begun:
            await self._begin(self)
            self._begun = True

    def __aiter__(self) -> Listening:
        return self

    async def __anext__(self) -> Message:
        """The next message; the one before counts as taken."""
        if self._taking is not None:
            self._taking.taken()
            self._taking = None
        await self.ready()
        while self._taking is None:
            if self.failure is not None and self.queue.empty():
                raise self.failure
            self._taking = await self.queue.get()
        return self._taking.message

    def fail(self, error: PqcIiotError) -> None:
        """Ends it; what waits is handed over first."""
        self.failure = error
        with contextlib.suppress(asyncio.QueueFull):
            self.queue.put_nowait(None)  # wakes who waits for nothing

    async def aclose(self) -> None:
        """Stops listening. What was not taken is not acknowledged."""
        self._filters = ()

    async def __aenter__(self) -> Listening:
        await self.ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class Bus:
    """Use it as an asynchronous context manager, in one event loop."""

    def __init__(
        self,
        node: Node,
        transport: Transport,
        on_refused: Callable[[Incoming, PqcIiotError], None] | None = None,
    ) -> None:
        """`on_refused` hears of each frame that was refused, after its audit event."""
        self._node, self._transport, self._on_refused = node, transport, on_refused
        # One thread: the node takes turns anyway, and the event loop never waits for a disk.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="pqc-iiot-bus")
        # Forgotten listeners must not hold up the others.
        self._listeners: weakref.WeakSet[Listening] = weakref.WeakSet()
        self._pump: asyncio.Task[None] | None = None
        self._announcements = False
        self._closed = False
        self._flushing: asyncio.Task[None] | None = None
        from .durable import Receiving, Sending  # builds on what is here

        self._receiving = Receiving(node, self._flush_soon)
        self._sending = Sending(node, transport, self._run, self._flush_soon, self._fail)
        self._failure: PqcIiotError | None = None
        if node.meter is not None:
            node.meter.queues["listeners"] = self._waiting

    async def __aenter__(self) -> Bus:
        await self._transport.connect()
        if len(self._node.outbox):
            self._sending.start()
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
        if not self._closed:
            self._closed = True
            await self._sending.aclose()
            await self._flush()
        if self._flushing is not None:
            self._flushing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flushing
        await self._transport.aclose()
        self._fail(TransportError("the bus was closed"))
        self._worker.shutdown(wait=False)

    async def send(
        self,
        to: str,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        durable: bool = False,
    ) -> None:
        """Protects `payload` for the peer named `to` and publishes it on `topic`, to which
        it is bound. Errors as `Node.seal`; `TransportError` where the broker refuses it.

        With `durable` it returns when the frame is in `node.outbox`, on disk: it goes out as
        soon as there is a broker, also after a crash, or it is reported
        (`node.outbox.on_lost`). It waits while the outbox is full.
        """
        if durable:
            check_topic(topic)
            await self._sending.send(Order(payload, to, topic, qos, retain))
            return
        await self._sending.passed(to)
        via = self._transport.name
        seal = partial(self._node.seal, payload, to=to, context=topic, transport=via)
        frame = await self._run(seal)
        await self._transport.publish(topic, frame, qos=qos, retain=retain)

    def listen(self, *filters: str, qos: int = 1, durable: bool = False) -> Listening:
        """Messages from topics that match a filter, verified, fresh, from trusted peers.

        `async for message in bus.listen("line1/#")`; a message counts as taken when the
        next one is asked for. Listeners whose filters overlap each get the message.

        With `durable` messages are in `node.inbox`, on disk, before they are handed over,
        and come again after a crash, with the same `id`, until they were taken. Then the
        broker hears of it as soon as they are on disk.
        """

        async def begin(listening: Listening) -> None:
            if self._failure is not None:
                raise self._failure
            if durable:
                self._receiving.add(listening, filters)
            else:
                self._listeners.add(listening)
            for topic_filter in filters:
                await self._transport.subscribe(topic_filter, qos=qos)
            self._start()

        return (self._receiving.listen if durable else Listening)(filters, begin)

    async def acknowledge(self, *messages: Message) -> None:
        """The application is done with messages of a durable listener: none of them ever
        comes again once this has returned."""
        await self._run(partial(self._node.inbox.ack, *messages))
        self._receiving.changed()

    async def drained(self) -> None:
        """Returns when the broker has everything that was sent with `durable`, or it was
        reported as lost. `TransportError` where the bus is closed before."""
        await self._sending.drained()

    async def witness(self, *peers: str) -> None:
        """Countersigns checkpoints for peers that ask, and asks `peers` to countersign this
        device's; returns when each of them has answered, and never if none is named.

        What they answered: `node.witness.cosigned`, and the audit log.
        """
        witness, waiting = self._node.witness, set(peers)
        async with self.listen(witness.own_context) as messages:
            for peer in peers:
                await self._publish_witness(peer, await self._run(partial(witness.request, peer)))
            async for message in messages:
                try:
                    answer = await self._run(partial(witness.receive, message))
                except PqcIiotError as error:
                    log.info("a message to a witness was refused: %s", error)
                    continue
                if answer is not None:
                    await self._publish_witness(message.sender, answer)
                    continue
                waiting.discard(message.sender)
                if peers and not waiting:
                    return

    async def _publish_witness(self, peer: str, frame: bytes) -> None:
        await self._sending.passed(peer)
        await self._transport.publish(self._node.witness.context(peer), frame)

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
                await self._receiving.room()
                deliveries = await self._transport.receive(self._receiving.batch)
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
                take = partial(self._node.peers.add, transport=self._transport.name)
                await self._run(partial(take, delivery.payload))
        except PqcIiotError as error:
            log.warning("an announced bundle was refused: %s", error)
        delivery.ack()

    async def _take_frames(self, deliveries: list[Delivery]) -> None:
        via = self._transport.name
        incoming = [Incoming(d.payload, d.topic, d.retained or d.again, via) for d in deliveries]
        durable = self._receiving.active
        results = await self._run(partial(self._node.open_many, incoming, durable=durable))
        if durable:
            self._receiving.came([each for each in results if isinstance(each, Message)])
        for delivery, frame, result in zip(deliveries, incoming, results, strict=True):
            if isinstance(result, PqcIiotError):
                log.info("a frame on %r was refused: %s", delivery.topic, result)
                if self._on_refused is not None:
                    self._on_refused(frame, result)
                delivery.ack()
                continue
            listeners = [each for each in list(self._listeners) if each.wants(delivery.topic)]
            kept = durable and self._receiving.wants(delivery.topic)
            if kept:
                delivery.ack()
            handover = _Handover(result, delivery, len(listeners))
            for listener in listeners:
                await listener.queue.put(handover)
            if not listeners and not kept:
                log.warning("nobody listens on %r any more", delivery.topic)
                delivery.ack()

    def _waiting(self) -> int:
        return sum(listener.queue.qsize() for listener in list(self._listeners))

    def _fail(self, error: PqcIiotError) -> None:
        self._failure = self._failure or error
        for listener in list(self._listeners):
            listener.fail(self._failure)
        self._receiving.fail(self._failure)

    def _flush_soon(self) -> None:
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush(FLUSH), name="pqc-iiot-flush")

    async def _flush(self, delay: float = 0) -> None:
        await asyncio.sleep(delay)
        try:
            await self._run(self._node.inbox.flush)
        except PqcIiotError as error:
            self._fail(error)


async def announced(transport: Transport, name: str, within: float = 1.0) -> bytes | None:
    """The bundle that a connected transport's broker keeps under a name; None where none
    comes `within` these seconds of the subscription."""
    topic = ANNOUNCEMENTS + name
    await transport.subscribe(topic)
    try:
        deliveries = await asyncio.wait_for(transport.receive(), within)
    except asyncio.TimeoutError:
        return None
    for delivery in deliveries:
        delivery.ack()
    return next((each.payload for each in deliveries if each.topic == topic), None)


def mqtt_bus(node: Node, url: str, **options: str | int | bool) -> Bus:
    """A bus over MQTT; see `Node.mqtt`."""
    from .mqtt import MqttTransport
    from .mqtt_options import MqttOptions

    return Bus(node, MqttTransport(MqttOptions.from_url(url, **options)))
