"""A broker inside one event loop, for tests and demonstrations: no network, same rules."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field

from ..errors import TransportError
from . import (
    Delivery,
    Payload,
    Transport,
    check_filter,
    check_qos,
    check_topic,
    closed_error,
    no_ack,
    topic_matches,
)

__all__ = ["MemoryBroker", "MemoryTransport"]


@dataclass(slots=True, eq=False)
class _Session:
    """What the broker keeps of one client id: `unacked` at QoS 1 and 2, in order."""

    filters: dict[str, int] = field(default_factory=dict)
    inbox: deque[Delivery] = field(default_factory=deque)
    unacked: dict[int, Delivery] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    connected: bool = False


class MemoryBroker:
    """Retains, queues, and delivers again what was not acknowledged.

    A session holds at most `max_queued` messages; whoever publishes to a full one waits.
    """

    def __init__(self, *, max_queued: int = 1024) -> None:
        self.max_queued = max_queued
        self.retained: dict[str, bytes] = {}
        self.sessions: dict[str, _Session] = {}
        self._numbers = itertools.count(1)

    def client(self, client_id: str = "") -> MemoryTransport:
        """A transport that is not connected yet.

        With a `client_id`, subscriptions and unacknowledged messages outlive it, for
        the next client of that name; without one, they end with it.
        """
        return MemoryTransport(self, client_id)

    def deliver(
        self,
        session: _Session,
        topic: str,
        payload: bytes,
        qos: int,
        retained: bool,
        again: bool = False,
    ) -> None:
        """Put one message into a session's inbox."""
        number = next(self._numbers)

        def ack() -> None:
            session.unacked.pop(number, None)
            session.room.set()

        delivery = Delivery(topic, payload, retained, ack if qos else no_ack, again)
        if qos:
            session.unacked[number] = delivery
        session.inbox.append(delivery)
        session.arrived.set()


class MemoryTransport(Transport):
    """A client of a `MemoryBroker`; made by `MemoryBroker.client`."""

    name = "memory"

    def __init__(self, broker: MemoryBroker, client_id: str) -> None:
        self._broker = broker
        self._client_id = client_id
        self._key = client_id or f"#{id(self)}"
        self._session: _Session | None = None
        self._closed = False

    async def connect(self) -> None:
        """See `Transport.connect`."""
        session = self._broker.sessions.setdefault(self._key, _Session())
        if session.connected or self._closed:
            raise TransportError("this client is connected already", hint="Use another client_id.")
        session.connected = True
        self._session = session

    async def publish(
        self, topic: str, payload: Payload, *, qos: int = 1, retain: bool = False
    ) -> None:
        """See `Transport.publish`; waits for room in every session that gets the message."""
        check_topic(topic)
        check_qos(qos)
        self._open_session()
        if callable(payload):
            payload = payload()
        if retain:
            self._broker.retained[topic] = payload
            if not payload:  # MQTT 5, 3.3.1.3
                del self._broker.retained[topic]
        for session in list(self._broker.sessions.values()):
            granted = [q for f, q in session.filters.items() if topic_matches(f, topic)]
            if granted and (session.connected or min(qos, max(granted))):
                await self._wait_for_room(session)
                self._broker.deliver(session, topic, payload, min(qos, max(granted)), False)
        await asyncio.sleep(0)

    async def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """See `Transport.subscribe`."""
        check_filter(topic_filter)
        check_qos(qos)
        session = self._open_session()
        session.filters[topic_filter] = qos
        for topic, payload in self._broker.retained.items():
            if topic_matches(topic_filter, topic):
                self._broker.deliver(session, topic, payload, qos, True)

    async def receive(self, max_batch: int = 256) -> list[Delivery]:
        """See `Transport.receive`."""
        session = self._open_session()
        while not session.inbox:
            session.arrived.clear()
            await session.arrived.wait()
            self._open_session()
        batch = [session.inbox.popleft() for _ in range(min(max_batch, len(session.inbox)))]
        session.room.set()
        return batch

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        session, self._session, self._closed = self._session, None, True
        if session is None:
            return
        session.connected = False
        again = list(session.unacked.values()) if self._client_id else []
        if not self._client_id:
            del self._broker.sessions[self._key]
        session.inbox.clear()
        session.unacked.clear()
        for delivery in again:
            topic, payload, retained = delivery.topic, delivery.payload, delivery.retained
            self._broker.deliver(session, topic, payload, 1, retained, again=True)
        session.arrived.set()
        for other in (session, *self._broker.sessions.values()):  # who waits may be us
            other.room.set()

    def _open_session(self) -> _Session:
        if self._closed:
            raise closed_error()
        if self._session is None:
            raise TransportError("this transport is not connected", hint="Call connect() first.")
        return self._session

    async def _wait_for_room(self, session: _Session) -> None:
        while max(len(session.unacked), len(session.inbox)) >= self._broker.max_queued:
            session.room.clear()
            await session.room.wait()
            self._open_session()
