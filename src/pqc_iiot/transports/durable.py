"""Inbox and outbox on a transport: what makes `listen` and `send` of a bus durable.

In: the broker hears that a frame is ours once its message is in the inbox; the application
takes it from there, also what an earlier run has left. Out: frames leave the outbox in the
order of their numbers, and go from it once the broker has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

from ..errors import (
    BrokerRefusedError,
    InvalidInputError,
    PqcIiotError,
    QueueFullError,
    TransportError,
)
from ..message import Message, Outgoing
from ..node import Node
from ..outbox import Order
from . import Transport, topic_matches
from .listening import Listening

BATCH, DURABLE_BATCH = 256, 1024
"""Frames that are opened at once, or put into a queue with one commit."""
WINDOW = 256
"""Frames with the transport at once."""
TICK = 1.0
"""Seconds between two looks for what has expired."""

log = logging.getLogger("pqc_iiot.transports.durable")
_T = TypeVar("_T")


class Run(Protocol):
    """`Bus._run`: work for the bus's thread."""

    def __call__(self, work: Callable[[], _T]) -> Awaitable[_T]:
        """See there."""


class DurableListening(Listening):
    """What `Bus.listen` returns with `durable`: messages from the inbox.

    First those that an earlier run or listener has left. A message is acknowledged when the
    next one is asked for, durably a moment later; `Bus.acknowledge` waits until it is.
    """

    def __init__(
        self,
        filters: tuple[str, ...],
        begin: Callable[[Listening], Awaitable[None]],
        receiving: Receiving,
    ) -> None:
        super().__init__(filters, begin)
        self._receiving = receiving
        self._held: dict[bytes, Message] = {}
        self._current: Message | None = None
        self._place = 0
        self._grew = asyncio.Event()

    def pull(self) -> None:
        """Takes what is new in the inbox and matches."""
        messages, self._place = self._receiving.node.inbox.since(self._place)
        for message in messages:
            if self.wants(message.context):
                self._held[message.id] = message
        self._grew.set()

    @property
    def waits(self) -> bool:
        """Whether there is something to be taken, or being worked on."""
        return bool(self._held) or self._current is not None

    def holds(self, message: Message) -> bool:
        """Whether it is still to be taken here."""
        return message.id in self._held

    async def __anext__(self) -> Message:
        """The next message; the one before counts as taken."""
        if self._current is not None:
            self._receiving.taken(self._current)
            self._current = None
        await self.ready()
        while not self._held:
            if self._failure is not None:
                raise self._failure
            self._grew.clear()
            await self._grew.wait()
        self._current = self._held.pop(next(iter(self._held)))
        return self._current

    def fail(self, error: PqcIiotError) -> None:
        """Ends it; what waits is handed over first."""
        self._failure = error
        self._grew.set()

    async def aclose(self) -> None:
        """Stops listening. What was not taken waits for the next listener."""
        await super().aclose()
        self._held.clear()


class Receiving:
    """The inbox's side of a bus."""

    def __init__(self, node: Node, flush: Callable[[], None]) -> None:
        self.node, self._flush = node, flush
        self._filters: list[str] = []
        self._listeners: weakref.WeakSet[DurableListening] = weakref.WeakSet()
        self._room = asyncio.Event()

    @property
    def active(self) -> bool:
        """Whether somebody listens durably, or did: then everything goes to the inbox."""
        return bool(self._filters)

    @property
    def batch(self) -> int:
        """How many frames are opened at once."""
        return DURABLE_BATCH if self.active else BATCH

    def listen(
        self, filters: tuple[str, ...], begin: Callable[[Listening], Awaitable[None]]
    ) -> DurableListening:
        """A listener of the inbox; `begin` calls `add`."""
        return DurableListening(filters, begin, self)

    def wants(self, topic: str) -> bool:
        """Whether messages of this topic stay in the inbox until they are taken."""
        return any(topic_matches(topic_filter, topic) for topic_filter in self._filters)

    def add(self, listening: Listening, filters: tuple[str, ...]) -> None:
        """One more listener; it begins with what is there."""
        assert isinstance(listening, DurableListening)
        self._filters += [each for each in filters if each not in self._filters]
        self._listeners.add(listening)
        listening.pull()

    def came(self, messages: list[Message]) -> None:
        """These are in the inbox now. Those that nobody listens to durably go again: they
        are handed over at most once, as without durability."""
        self.node.inbox.ack_later(*(each for each in messages if not self.wants(each.context)))
        for listening in list(self._listeners):
            listening.pull()

    def taken(self, message: Message) -> None:
        """A listener is done with it; acknowledged when the last one is."""
        if not any(listening.holds(message) for listening in list(self._listeners)):
            self.node.inbox.ack_later(message)
            self.changed()

    def changed(self) -> None:
        """Something was acknowledged."""
        self._room.set()
        self._flush()

    async def room(self) -> None:
        """Returns when the inbox takes more; until then the network has to wait."""
        while self.active and self.node.inbox.full:
            if not any(listening.waits for listening in list(self._listeners)):
                log.warning(
                    "the inbox is full of messages that nobody here listens to;"
                    " to see them, end this program, then: pqc-iiot inbox list"
                )
            self._room.clear()
            await self._room.wait()

    def fail(self, error: PqcIiotError) -> None:
        """Ends every listener."""
        for listening in list(self._listeners):
            listening.fail(error)


class Sending:
    """The outbox's side of a bus: one task publishes, one looks for what has expired."""

    def __init__(
        self,
        node: Node,
        transport: Transport,
        run: Run,
        flush: Callable[[], None],
        fail: Callable[[PqcIiotError], None],
    ) -> None:
        """`fail` hears where the state cannot be made durable."""
        self._node, self._transport, self._run = node, transport, run
        self._flush, self._fail = flush, fail
        self._orders: list[tuple[Order, asyncio.Future[Outgoing | PqcIiotError]]] = []
        self._window = asyncio.Semaphore(WINDOW)
        self._flying: dict[int, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._committing: asyncio.Task[None] | None = None
        self._last = 0
        self._closed = False
        self._wake, self._changed = asyncio.Event(), asyncio.Event()

    async def send(self, order: Order) -> Outgoing:
        """Returns when it is on disk. Waits while the outbox is full; what is handed in
        meanwhile shares a commit. Errors as `Outbox.put`."""
        if self._closed:
            raise _not_accepted()
        future: asyncio.Future[Outgoing | PqcIiotError]
        future = asyncio.get_running_loop().create_future()
        self._orders.append((order, future))
        if self._committing is None or self._committing.done():
            self._committing = self._begin(self._commit)
        result = await future
        if isinstance(result, PqcIiotError):
            raise result
        return result

    async def _commit(self) -> None:
        while self._orders:
            waiting = [each for each in self._orders if not each[1].done()]
            batch, self._orders = waiting[:DURABLE_BATCH], waiting[DURABLE_BATCH:]
            put = partial(self._node.outbox.put_many, [order for order, _ in batch])
            results: list[Outgoing | PqcIiotError]
            try:
                results = await self._run(put)
            except PqcIiotError as error:
                results = [error] * len(batch)
            full = []
            for each, result in zip(batch, results, strict=True):
                if isinstance(result, QueueFullError):
                    full.append(each)
                elif not each[1].done():
                    each[1].set_result(result)
            self.start()
            if full:
                self._orders[:0] = full  # they keep their turn
                await self._some_room()
            if self._closed:
                for _, future in self._orders:
                    if not future.done():
                        future.set_result(_not_accepted())
                return

    async def _some_room(self) -> None:
        """Returns when a part of a full outbox has left. Not for each single frame: every
        attempt asks for all that wait."""
        length = len(self._node.outbox)
        enough = max(0, length - max(1, min(WINDOW // 4, length // 8)))
        while len(self._node.outbox) > enough and not self._closed:
            await self._change()

    def start(self) -> None:
        """Publishes what waits, now and from now on."""
        self._wake.set()
        if not self._tasks and not self._closed:
            for work in (self._publish_all, self._expire):
                self._tasks.append(self._begin(work))

    def _begin(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work()
            except PqcIiotError as error:
                self._fail(error)

        return asyncio.create_task(guarded(), name="pqc-iiot-outbox")

    async def _publish_all(self) -> None:
        while True:
            self._wake.clear()
            for entry in self._node.outbox.since(self._last):
                await self._window.acquire()
                if await self._may_go(entry):
                    task = self._begin(partial(self._publish, entry))
                    self._flying[entry.number] = task
                    # A task that is cancelled before its first step runs nothing of its own.
                    task.add_done_callback(partial(self._landed, entry.number))
                else:
                    self._window.release()
                self._last = entry.number
                self._move()
            await self._wake.wait()

    async def _may_go(self, entry: Outgoing) -> bool:
        try:
            return await self._run(partial(self._node.outbox.check, entry))
        except PqcIiotError as error:
            await self._run(partial(self._node.outbox.give_up, entry, error))
            return False

    async def _publish(self, entry: Outgoing) -> None:
        publish = self._transport.publish
        try:
            await publish(entry.context, entry.frame, qos=entry.qos, retain=entry.retain)
            self._node.outbox.sent_later(entry)
            self._flush()
        except (BrokerRefusedError, InvalidInputError) as error:
            await self._run(partial(self._node.outbox.give_up, entry, error))
        except TransportError:
            pass  # closed: it goes out with the next bus

    def _landed(self, number: int, _: asyncio.Task[None]) -> None:
        del self._flying[number]
        self._window.release()
        self._move()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            expired = {entry.number for entry in await self._run(self._node.outbox.expire)}
            for entry in self._node.outbox.waiting() if self._flying else ():
                if entry.number in self._flying and not await self._may_go(entry):
                    expired.add(entry.number)
            for number in expired & self._flying.keys():
                self._flying[number].cancel()
            if expired:
                self._move()

    async def passed(self, to: str) -> None:
        """Returns when no accepted frame to this peer still has to be handed to the
        transport: one that is sealed now has a higher number and must not overtake them."""
        while not self._closed and any(e.to == to for e in self._node.outbox.since(self._last)):
            self.start()
            await self._change()

    async def drained(self) -> None:
        """Returns when nothing waits any more. `TransportError` where the bus is closed."""
        while len(self._node.outbox):
            if self._closed:
                raise TransportError("the bus was closed", hint="the outbox keeps what waits")
            self.start()
            await self._change()

    def _move(self) -> None:
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def aclose(self) -> None:
        """Stops; what no broker has stays in the outbox."""
        self._closed = True
        self._changed.set()
        if self._committing is not None:
            await self._committing
        tasks = [*self._tasks, *self._flying.values()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _not_accepted() -> TransportError:
    return TransportError("the bus was closed", hint="the message was not accepted")
