"""How messages reach an application: one after the other, each acknowledged when taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType

from ..errors import PqcIiotError
from ..message import Message
from . import Delivery, topic_matches

QUEUE = 256
"""Messages that wait for one listener before the network has to wait for it."""

_TOPICS = 1024
"""Topics whose listeners are remembered."""


@dataclass(slots=True, eq=False)
class Handover:
    """A delivery on its way to listeners; acknowledged when the last has taken it."""

    delivery: Delivery
    waiting: int

    def taken(self) -> None:
        """One more listener has taken it."""
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
        self._taking: Handover | None = None
        self._waiting: deque[tuple[Message, Handover | None]] = deque()
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self._wanted: dict[str, bool] = {}
        self._failure: PqcIiotError | None = None

    # For the application

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
        if not self._begun:
            await self.ready()
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
        message, self._taking = self._waiting.popleft()
        if len(self._waiting) < QUEUE:
            self._room.set()
        return message

    async def aclose(self) -> None:
        """Stops listening. What was not taken is not acknowledged."""
        self._filters = ()
        self._wanted.clear()
        self._room.set()

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

    # For the bus

    def wants(self, topic: str) -> bool:
        """Whether a filter selects this topic."""
        wanted = self._wanted.get(topic)
        if wanted is None:
            if len(self._wanted) >= _TOPICS:
                self._wanted.clear()
            wanted = any(topic_matches(each, topic) for each in self._filters)
            self._wanted[topic] = wanted
        return wanted

    def put(self, message: Message, handover: Handover | None) -> bool:
        """Hands a message over; False where the next one has to wait for `room`."""
        self._waiting.append((message, handover))
        self._arrived.set()
        return len(self._waiting) < QUEUE

    async def room(self) -> None:
        """Waits until another message may be handed over."""
        while len(self._waiting) >= QUEUE and self._filters:
            self._room.clear()
            await self._room.wait()

    def depth(self) -> int:
        """How many messages wait to be taken."""
        return len(self._waiting)

    def fail(self, error: PqcIiotError) -> None:
        """Ends it; what waits is handed over first."""
        self._failure = error
        self._arrived.set()
