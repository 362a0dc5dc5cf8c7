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
from functools import partial
from itertools import groupby
from types import TracebackType
from typing import TypeVar

from ..errors import PolicyError, PqcIiotError, TransportError
from ..message import Incoming, Message
from ..node import Node
from ..outbox import Order
from ..policy import SessionUse
from ..session import Report
from ..sessions import PACKET
from . import Delivery, Transport, check_topic
from .announcing import SHOWN, Announcing
from .durable import Receiving, Sending
from .listening import Handover, Listening
from .session_traffic import SessionTraffic

__all__ = ["Bus", "Listening", "mqtt_bus"]

FLUSH = 0.05
"""Seconds until what was taken or sent durably is so, where no other commit comes first."""

_ALLOW = "allow frames beside sessions: pqc-iiot policy set --sessions auto"

log = logging.getLogger("pqc_iiot.transports.bus")
_T = TypeVar("_T")


class Bus:
    """Use it as an asynchronous context manager, in one event loop."""

    def __init__(
        self,
        node: Node,
        transport: Transport,
        on_refused: Callable[[Incoming, PqcIiotError], None] | None = None,
        on_report: Callable[[Report], None] | None = None,
        *,
        sessions: bool = True,
    ) -> None:
        """`on_refused` hears of each frame that was refused, after its audit event;
        `on_report` what became of messages that went through sessions. Without `sessions`
        every message is a frame of its own, unless policy forbids that: for a few only."""
        self._node, self._transport, self._on_refused = node, transport, on_refused
        self.on_report, self._with_sessions = on_report, sessions
        self._sessions: SessionTraffic | None = None
        # One thread: the node takes turns anyway, and the event loop never waits for a disk.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="pqc-iiot-bus")
        # Forgotten listeners must not hold up the others.
        self._listeners: weakref.WeakSet[Listening] = weakref.WeakSet()
        self._pump: asyncio.Task[None] | None = None
        self._closed = False
        self._flushing: asyncio.Task[None] | None = None
        self._receiving = Receiving(node, self._flush_soon)
        self._sending = Sending(node, transport, self._run, self._flush_soon, self._fail)
        self._announcing = Announcing(node, transport, self._run, self._start)
        self._failure: PqcIiotError | None = None
        if node.meter is not None:
            node.meter.queues["listeners"] = self._waiting

    async def __aenter__(self) -> Bus:
        await self._transport.connect()
        use = self._node.policy.sessions
        if use is SessionUse.ALWAYS or (self._with_sessions and use is SessionUse.AUTO):
            traffic = SessionTraffic(self._node, self._transport, self._run, self._report)
            if await traffic.start():
                self._sessions = traffic
                self._start()
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
        if self._sessions is not None:
            await self._sessions.aclose()
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
    ) -> int:
        """Protects `payload` for the peer named `to` and publishes it on `topic`, to which
        it is bound.

        By policy it goes through a session, which is set up by itself, or as a frame of its
        own. Returns the message's token in reports, or 0 for a frame of its own, of which
        nobody reports. Errors as `Node.seal`; `TransportError` where the broker refuses it,
        or no session comes about and policy wants one.

        With `durable` it is a frame of its own, since sessions do not outlive a crash, and
        returns when that is in `node.outbox`, on disk: it goes out as soon as there is a
        broker, also after a crash, or it is reported (`node.outbox.on_lost`). It waits while
        the outbox is full.
        """
        node, traffic, via = self._node, self._sessions, self._transport.name
        if durable:
            if node.policy.sessions is SessionUse.ALWAYS:
                raise self._sessions_only("nothing can wait on disk")
            check_topic(topic)
            await self._sending.send(Order(payload, to, topic, qos, retain))
            return 0
        if traffic is not None and not retain:
            if token := await traffic.send(to, topic, payload, qos):
                return token
        elif node.policy.sessions is SessionUse.ALWAYS:
            if retain:
                raise self._sessions_only("nothing can be retained")
            raise TransportError("there are no sessions on this connection", hint=_ALLOW)
        await self._sending.passed(to)

        def seal() -> bytes:
            frame = node.seal(payload, to=to, context=topic, transport=via)
            if traffic is not None and not retain:
                traffic.want(to)
            return frame

        frame = await self._run(seal)
        if traffic is not None:
            traffic.flush()
        await self._transport.publish(topic, frame, qos=qos, retain=retain)
        return 0

    @staticmethod
    def _sessions_only(consequence: str) -> PolicyError:
        return PolicyError(f"policy allows sessions only: {consequence}", hint=_ALLOW)

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
        """Shows this device's bundle to all, retained, and that its keys are in use here. It
        makes nobody trust it. A copy that shows the same is noticed: an event
        `refused_cloned_identity`, and `Status.cloned`."""
        if self._sessions is not None:
            await self._sessions.follow_keys()
        await self._announcing.announce()

    async def watch_announcements(self) -> None:
        """Takes in bundles that others show: they wait for approval (or are pinned under
        TOFU), and signed successors of trusted keys replace them. A copy of this device is
        noticed as by `announce`."""
        await self._announcing.watch()

    def _start(self) -> None:
        if self._pump is None:
            self._pump = asyncio.create_task(self._receive(), name="pqc-iiot-bus")

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def _receive(self) -> None:
        # In the order in which they came, in trains of one kind.
        try:
            while True:
                await self._receiving.room()
                deliveries = await self._transport.receive(self._receiving.batch)
                for take, train in groupby(deliveries, self._taker):
                    await take(self, list(train))
        except PqcIiotError as error:
            self._fail(error)

    def _taker(self, delivery: Delivery) -> Callable[[Bus, list[Delivery]], Awaitable[None]]:
        """What takes this delivery in."""
        topic, traffic = delivery.topic, self._sessions
        if topic.startswith(SHOWN) and self._announcing.takes(topic):
            return Bus._take_announced
        if traffic is not None:
            if traffic.is_inbox(topic):
                return Bus._take_inbox
            if delivery.payload[:1] == PACKET:
                return Bus._take_packets
        return Bus._take_frames

    async def _take_announced(self, deliveries: list[Delivery]) -> None:
        await self._announcing.take(deliveries)

    async def _take_inbox(self, deliveries: list[Delivery]) -> None:
        assert self._sessions is not None
        await self._sessions.take_in([delivery.payload for delivery in deliveries])
        for delivery in deliveries:
            delivery.ack()

    async def _take_packets(self, deliveries: list[Delivery]) -> None:
        assert self._sessions is not None
        topics = [delivery.topic for delivery in deliveries]
        packets = [delivery.payload for delivery in deliveries]
        # With an inbox, peers hear that packets arrived when they are on disk: after a crash
        # nobody can open them again.
        self._sessions.holding = self._receiving.active
        results = self._sessions.open(topics, packets)
        if self._receiving.active:
            messages = [each for each in results if isinstance(each, Message)]
            await self._run(partial(self._node.inbox.put, messages))
            self._receiving.came(messages)
        self._sessions.holding = False
        self._sessions.flush()
        await self._hand_over(deliveries, results)

    async def _take_frames(self, deliveries: list[Delivery]) -> None:
        via, durable = self._transport.name, self._receiving.active
        incoming = [Incoming(d.payload, d.topic, d.retained or d.again, via) for d in deliveries]
        results = await self._run(partial(self._node.open_many, incoming, durable=durable))
        if durable:
            self._receiving.came([each for each in results if isinstance(each, Message)])
        await self._hand_over(deliveries, results)

    async def _hand_over(
        self, deliveries: list[Delivery], results: list[Message | PqcIiotError]
    ) -> None:
        topic, listeners, kept = None, list[Listening](), False
        for delivery, result in zip(deliveries, results, strict=True):
            if isinstance(result, PqcIiotError):
                self._tell_refused(delivery, result)
                continue
            if delivery.topic != topic:
                topic = delivery.topic
                kept = self._receiving.wants(topic)
                listeners = [each for each in list(self._listeners) if each.wants(topic)]
            if kept:
                delivery.ack()
            handover = Handover(delivery, len(listeners)) if delivery.wants_ack else None
            full = [each for each in listeners if not each.put(result, handover)]
            for listener in full:
                await listener.room()
            if full:
                topic = None  # who listens may have changed
            if not listeners and not kept:
                log.warning("nobody listens on %r any more", delivery.topic)
                delivery.ack()

    def _tell_refused(self, delivery: Delivery, error: PqcIiotError) -> None:
        if log.isEnabledFor(logging.INFO):
            log.info("a frame on %r was refused: %s", delivery.topic, error)
        if self._on_refused is not None:
            via = self._transport.name
            frame = Incoming(
                delivery.payload, delivery.topic, delivery.retained or delivery.again, via
            )
            self._on_refused(frame, error)
        delivery.ack()

    def _report(self, report: Report) -> None:
        if self.on_report is not None:
            self.on_report(report)

    def _waiting(self) -> int:
        return sum(listener.depth() for listener in list(self._listeners))

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


def mqtt_bus(node: Node, url: str, **options: str | int | bool) -> Bus:
    """A bus over MQTT; see `Node.mqtt`."""
    from .mqtt import MqttTransport
    from .mqtt_options import MqttOptions

    return Bus(node, MqttTransport(MqttOptions.from_url(url, **options)))
