"""`node.inbox`: what was received and the application has not acknowledged yet."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable

from .account import account
from .errors import QueueFullError
from .message import Message
from .state import State


class Inbox:
    """Messages, each with its sequence number on disk before anybody sees it. Thread-safe.

    After a crash each that was not acknowledged durably is there again, with the same `id`;
    one that was is gone for good. Errors as `Node`.
    """

    def __init__(self, state: Callable[[], State], lock: threading.RLock) -> None:
        self._state, self._lock = state, lock

    def messages(self) -> list[Message]:
        """All of them, in the order in which they arrived."""
        return [waiting.message for waiting in self._state().queues.since(0)]

    def waiting(self) -> list[tuple[Message, int]]:
        """All of them, each with the seconds for which it has waited."""
        queues = self._state().queues
        now = queues.clock.now()
        return [(each.message, now - each.since) for each in queues.since(0)]

    def since(self, place: int) -> tuple[list[Message], int]:
        """Those that came after a place (0: all), and the place after them. They keep their
        order, and a place means something while the node is open."""
        found = self._state().queues.since(place)
        return [each.message for each in found], found[-1].place if found else place

    def ack(self, *messages: Message) -> None:
        """The application is done with these: none of them ever comes again once this has
        returned. One commit for all. What is acknowledged already is left alone."""
        with self._lock:
            self.ack_later(*messages)
            self._state().queues.flush()

    def ack_later(self, *messages: Message) -> None:
        """The same without a commit of its own: it is durable with the next one (of new
        messages, of `flush`, of a clean end). A crash before brings them again."""
        self._state().queues.acknowledge(message.id for message in messages)

    def drop(self, *messages: Message) -> None:
        """`ack` for messages that nobody is going to work on: an event for each sender says
        how many those were."""
        audit, operator = self._state().audit, account()
        for name, count in Counter(message.sender for message in messages).items():
            audit.emit("inbox_dropped", name=name, count=count, operator=operator)
        self.ack(*messages)

    def flush(self) -> None:
        """Makes durable what was acknowledged."""
        with self._lock:
            self._state().queues.flush()

    def put(self, messages: Iterable[Message]) -> None:
        """Messages that came by a session, which keeps their freshness itself; durable when
        it returns. Frames are put in by `Node.open_many`."""
        with self._lock:
            self.check_room()
            self._state().queues.put((message, b"") for message in messages)

    @property
    def full(self) -> bool:
        """Whether the limits of policy are reached, so that no more is taken."""
        state = self._state()
        policy = state.keystore.policy
        return state.queues.inbox_reaches(policy.inbox_messages, policy.inbox_bytes)

    def check_room(self) -> None:
        """Raises `QueueFullError` where it is full."""
        if self.full:
            raise QueueFullError(
                "the inbox is full: the application has not acknowledged what is in it",
                hint="acknowledge messages, or raise inbox_messages and inbox_bytes of the policy",
            )

    def __len__(self) -> int:
        return self._state().queues.inbox_length()
