"""`node.outbox`: frames that were accepted for sending and that no broker has yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from . import envelope
from .errors import InvalidInputError, PqcIiotError, QueueFullError, StateError
from .message import Outgoing
from .state import State


class Seal(Protocol):
    """`Node.seal`."""

    def __call__(self, payload: bytes, *, to: str, context: str = "", transport: str = "") -> bytes:
        """See there."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be sent; `qos` is 1 or 2, since QoS 0 is never acknowledged."""

    payload: bytes
    to: str
    context: str = ""
    qos: int = 1
    retain: bool = False


class Outbox:
    """Frames, on disk before they count as accepted. Thread-safe.

    They keep their number and every byte: one that goes out again after a crash is a
    duplicate for its recipient, and harmless. What is given up is reported: an audit event,
    a count in the status, `on_lost`. Errors as `Node`.
    """

    def __init__(
        self,
        state: Callable[[], State],
        lock: threading.RLock,
        seal: Seal,
        refused: Callable[[PqcIiotError], None],
    ) -> None:
        self._state, self._lock, self._seal, self._refused = state, lock, seal, refused
        # Numbers must be on disk in their order: one that comes late is refused as old.
        self._order = threading.Lock()
        self.on_lost: Callable[[Outgoing, PqcIiotError | None], None] | None = None
        """Hears of each frame that is given up, with the error, or None where it expired."""

    def put(
        self, payload: bytes, *, to: str, context: str = "", qos: int = 1, retain: bool = False
    ) -> Outgoing:
        """Protects `payload` as `Node.seal` does and keeps the frame until a broker has it.

        Accepted means durable. Errors as `Node.seal`; `QueueFullError` where a limit of
        policy is reached, `StateError` where it cannot be made durable.
        """
        (result,) = self.put_many([Order(payload, to, context, qos, retain)])
        if isinstance(result, PqcIiotError):
            raise result
        return result

    def put_many(self, orders: Sequence[Order]) -> list[Outgoing | PqcIiotError]:
        """Several, with one commit: an entry or the refusal each. `StateError` where the
        commit fails: then none is accepted."""
        self.expire()
        with self._order:
            results = self._make(orders)
            entries = [each for each in results if isinstance(each, Outgoing)]
            try:
                with self._lock:
                    if entries:
                        self._state().queues.send(entries)
            except StateError as error:
                self._refused(error)
                raise
        return results

    def _make(self, orders: Sequence[Order]) -> list[Outgoing | PqcIiotError]:
        results: list[Outgoing | PqcIiotError] = []
        count = size = 0
        for order in orders:
            try:
                self._check(order, count, size)
                frame = self._seal(order.payload, to=order.to, context=order.context)
            except StateError:
                raise
            except PqcIiotError as error:
                results.append(error)
                continue
            number = envelope.parse(frame).sequence
            now = self._state().queues.clock.now()
            entry = Outgoing(number, order.to, order.context, frame, order.qos, order.retain, now)
            count, size = count + 1, size + entry.size
            results.append(entry)
        return results

    def _check(self, order: Order, count: int, size: int) -> None:
        if order.qos not in (1, 2):
            raise InvalidInputError(
                f"QoS {order.qos} cannot be durable: nobody acknowledges it",
                hint="use QoS 1 or 2, or send without durable",
            )
        state = self._state()
        policy = state.keystore.policy
        if state.queues.outbox_reaches(policy.outbox_messages - count, policy.outbox_bytes - size):
            raise QueueFullError(
                "the outbox is full: no broker has taken what is in it",
                hint="wait for the broker, or raise outbox_messages and outbox_bytes of the policy",
            )

    def waiting(self) -> list[Outgoing]:
        """What no broker has yet, in the order of the numbers: to be published in it."""
        return self.since(0)

    def ages(self) -> list[tuple[Outgoing, int]]:
        """The same, each with the seconds for which it has waited."""
        now = self._state().queues.clock.now()
        return [(entry, now - entry.since) for entry in self.waiting()]

    def since(self, number: int) -> list[Outgoing]:
        """What no broker has yet, above a number."""
        return self._state().queues.outgoing(number)

    def __len__(self) -> int:
        return self._state().queues.outbox_length()

    def check(self, entry: Outgoing) -> bool:
        """Whether it still waits. `UnknownPeerError` or `RevokedPeerError` where its peer is
        no longer trusted: `give_up` what must not go out."""
        with self._lock:
            self._state().keystore.recipient(entry.to)
            return self._state().queues.sends(entry.number)

    def sent(self, *entries: Outgoing) -> None:
        """A broker has acknowledged these: they go, durable when it returns."""
        with self._lock:
            self.sent_later(*entries)
            self.flush()

    def sent_later(self, *entries: Outgoing) -> None:
        """The same without a commit of its own; a crash before the next one sends the same
        frames again, and their recipients refuse them as duplicates."""
        self._state().queues.sent(entry.number for entry in entries)

    def flush(self) -> None:
        """Makes durable what was sent."""
        with self._lock:
            self._state().queues.flush()

    def give_up(self, entry: Outgoing, error: PqcIiotError) -> None:
        """It will not be sent, because of `error`: it goes, durably, and is reported."""
        state = self._state()
        _report(state, "outbox_refused", entry, refusal=error.code)
        state.queues.count_lost(refused=1)
        self.sent(entry)
        if self.on_lost is not None:
            self.on_lost(entry, error)

    def expire(self) -> list[Outgoing]:
        """Gives up what has waited for `policy.outbox_age` seconds, durably, and reports it."""
        state = self._state()
        age = state.keystore.policy.outbox_age
        now, old = state.queues.clock.now(), state.queues.older(age)
        for entry in old:
            _report(state, "outbox_expired", entry, age=now - entry.since)
        if old:
            state.queues.count_lost(expired=len(old))
            self.sent(*old)
        for entry in old:
            if self.on_lost is not None:
                self.on_lost(entry, None)
        return old


def _report(state: State, event: str, entry: Outgoing, **more: str | int) -> None:
    known: dict[str, str | int] = {
        "name": entry.to,
        "context": entry.context,
        "sequence": entry.number,
    }
    state.audit.emit(event, peer="", **(known | more))
