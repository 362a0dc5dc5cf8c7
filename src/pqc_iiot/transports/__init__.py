"""How frames travel: the narrow interface behind which every network lives.

A transport moves bytes and decides nothing about trust. What it delivers stays the
sender's problem until `Delivery.ack` is called: call it once the message is durable
and handed over, and a crash in between costs a redelivery, never a message.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import ClassVar, NamedTuple, TypeAlias, TypeVar

from ..errors import InvalidInputError, TransportError

__all__ = [
    "Delivery",
    "Payload",
    "Transport",
    "check_filter",
    "check_qos",
    "check_topic",
    "topic_matches",
]

MAX_TOPIC = 65_535
"""Bytes in a topic name or filter at most (MQTT 5, 4.7.3)."""

# MQTT 5, 1.5.4: never NUL or surrogates; brokers may hang up on the others.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)

Payload: TypeAlias = bytes | Callable[[], bytes]
"""What is published, or what makes it."""

_TransportT = TypeVar("_TransportT", bound="Transport")


def no_ack() -> None:
    """The acknowledgement of what needs none."""


class Delivery(NamedTuple):
    """One message as it arrived: `topic`, `payload` and whether it was `retained`; `again`:
    the broker says that it has sent it before."""

    # A named tuple: it is made for every message, and a frozen dataclass takes thrice as long.
    topic: str
    payload: bytes
    retained: bool
    on_ack: Callable[[], None] = no_ack
    again: bool = False

    @property
    def wants_ack(self) -> bool:
        """Whether the broker waits to be told: QoS 1 and 2."""
        return self.on_ack is not no_ack

    def ack(self) -> None:
        """Tell the broker that this message is ours now (PUBACK at QoS 1, PUBREC at 2).

        Idempotent, nothing at QoS 0, and harmless once the connection it came
        through is gone: the broker then delivers it again.
        """
        self.on_ack()


class Transport(ABC):
    """One client of one broker, for the event loop it was connected in."""

    name: ClassVar[str]
    """What the log and the metrics call it."""

    @abstractmethod
    async def connect(self) -> None:
        """Connect, once. Raises `TransportError` if that fails, with a hint why."""

    @abstractmethod
    async def publish(
        self, topic: str, payload: Payload, *, qos: int = 1, retain: bool = False
    ) -> None:
        """Publish, and return when the broker has it (QoS 1, 2) or it was written (QoS 0).

        A payload that is made by a function is made once, when it is this message's turn:
        what is made first goes out first. Waits while the bounded queue is full or the
        connection is down. Raises `TransportError` if the broker refuses the message or the
        transport closes first, `InvalidInputError` for an impossible topic, QoS or size.
        """

    @abstractmethod
    async def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """Subscribe, for this connection and every later one.

        Raises `TransportError` if the broker refuses, `InvalidInputError` for a
        filter that MQTT does not allow.
        """

    @abstractmethod
    async def receive(self, max_batch: int = 256) -> list[Delivery]:
        """Wait for messages; return what has already arrived, 1 to `max_batch` of them.

        Raises `TransportError` once the transport is closed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Say goodbye and close. Waiting callers get `TransportError`. Idempotent."""

    async def __aenter__(self: _TransportT) -> _TransportT:
        await self.connect()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def topic_matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter selects a topic (MQTT 5, 4.7), shared ones too (4.8.2)."""
    levels = _unshared(topic_filter).split("/")
    names = topic.split("/")
    if topic.startswith("$") and levels[0] in ("+", "#"):  # 4.7.2
        return False
    for index, level in enumerate(levels):
        if level == "#":  # also matches its parent
            return True
        if index == len(names) or level not in ("+", names[index]):
            return False
    return len(levels) == len(names)


@lru_cache(256)
def check_topic(topic: str) -> None:
    """Raise `InvalidInputError` unless `topic` can be published to."""
    _check_text("topic", topic)
    if "+" in topic or "#" in topic:
        raise InvalidInputError(
            f"topic {topic!r} has a wildcard",
            hint="Publish to one topic; + and # are for subscriptions.",
        )


def check_filter(topic_filter: str) -> None:
    """Raise `InvalidInputError` unless `topic_filter` can be subscribed to."""
    _check_text("topic filter", topic_filter)
    levels = _unshared(topic_filter).split("/")
    misplaced = any(len(level) > 1 and ("+" in level or "#" in level) for level in levels)
    if misplaced or "#" in levels[:-1]:
        raise InvalidInputError(
            f"topic filter {topic_filter!r} has a wildcard in the wrong place",
            hint="+ stands for one whole level, # for all remaining ones at the end.",
        )


def check_qos(qos: int) -> None:
    """Raise `InvalidInputError` unless `qos` is 0, 1 or 2."""
    if qos not in (0, 1, 2):
        raise InvalidInputError(f"QoS {qos!r}", hint="Use 0, 1 or 2.")


def closed_error() -> TransportError:
    """What everybody gets who uses a closed transport."""
    return TransportError("the transport is closed", hint="Make a new one.")


def _unshared(topic_filter: str) -> str:
    if not topic_filter.startswith("$share/"):
        return topic_filter
    group, _, rest = topic_filter.removeprefix("$share/").partition("/")
    if not group or not rest or "+" in group or "#" in group:
        raise InvalidInputError(
            f"topic filter {topic_filter!r} is no shared subscription",
            hint="Write $share/GROUP/FILTER.",
        )
    return rest


def _check_text(what: str, text: str) -> None:
    if _FORBIDDEN.search(text):
        raise InvalidInputError(
            f"{what} {text!r} has a control character or one that UTF-8 cannot carry",
            hint="Use printable characters.",
        )
    if not 1 <= len(text.encode()) <= MAX_TOPIC:
        raise InvalidInputError(
            f"{what} of {len(text.encode())} bytes",
            hint=f"Use 1 to {MAX_TOPIC} bytes of UTF-8.",
        )
