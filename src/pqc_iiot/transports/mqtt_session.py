"""What outlives a connection to a broker: who waits for whom, and how much may pile up.

No I/O: packets come in through `on_packet`, and go out through whichever link is up.
Section numbers are those of MQTT 5.0; MQTT 3.1.1 says the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import BrokerRefusedError, TransportError
from . import Delivery, closed_error, no_ack
from . import mqtt_packets as packets
from .mqtt_link import MqttLink
from .mqtt_options import MqttOptions

log = logging.getLogger("pqc_iiot.transports.mqtt")

_MAX_SENDS = 5
"""A message that loses its connection this often is at fault, and its publisher hears."""

_INBOX_BYTES = 8 << 20
"""Memory for messages that wait for `receive` before reading from the network stops."""

_WINDOW_3_1_1 = 20
"""Messages in flight to a broker that cannot say what it takes: mosquitto, for one, hangs
up on more at QoS 2."""

_OVERRUN_BYTES = 64 << 20
"""How far the inbox may grow while the broker owes us an answer."""


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message to publish; at QoS 1 and 2 until the broker has acknowledged it."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    done: asyncio.Future[None] | None = None  # at QoS 1 and 2
    packet_id: int = 0
    released: bool = False  # QoS 2: PUBREC came, PUBREL is what to send
    sends: int = 0

    @property
    def size(self) -> int:
        """Bytes of its packet at most: 10 beyond topic and payload."""
        return len(self.topic) + len(self.payload) + 10

    def encode(self, version: int) -> bytes:
        """The packet that sends it, or sends it on (4.3)."""
        if self.released:
            return packets.encode_ack(packets.PUBREL, self.packet_id)
        return packets.encode_publish(
            self.topic,
            self.payload,
            version=version,
            qos=self.qos,
            retain=self.retain,
            packet_id=self.packet_id,
            dup=self.sends > 0,
        )


class _Acknowledgement:
    """Acknowledges one delivery, once, on the connection that it came through."""

    __slots__ = ("_link", "_packet_id", "_qos", "_session")

    def __init__(self, session: MqttSession, link: MqttLink, packet_id: int, qos: int) -> None:
        self._session = session
        self._link = link
        self._packet_id = packet_id
        self._qos = qos

    def __call__(self) -> None:
        session = self._session
        if session.unacked.get(self._packet_id) is self:
            del session.unacked[self._packet_id]
            if self._qos == 2:
                session.unreleased.add(self._packet_id)
            kind = packets.PUBREC if self._qos == 2 else packets.PUBACK
            self._link.write(packets.encode_ack(kind, self._packet_id))


class MqttSession:
    """Session state (4.1) and flow control (4.9) of one client.

    `changed` is set while `link` is up or after `close`. `slots` bounds the messages
    that wait for the broker, `inbox` those that wait for us. `unacked` holds what we
    have not acknowledged yet, `unreleased` what we have at QoS 2, until PUBREL.
    """

    def __init__(self, options: MqttOptions) -> None:
        self.link: MqttLink | None = None
        self.closed = False
        self.dropped = 0
        self.changed = asyncio.Event()
        self.arrived = asyncio.Event()
        self.inbox: deque[Delivery] = deque()
        self.unacked: dict[int, _Acknowledgement] = {}
        self.unreleased: set[int] = set()
        self.slots = asyncio.Semaphore(options.max_outgoing)
        self._options = options
        self._inbox_bytes = 0
        self._waiting: deque[Outgoing] = deque()  # in the order they were published
        self._sent: dict[int, Outgoing] = {}
        self._subscribing: dict[int, asyncio.Future[int]] = {}
        self._packet_ids: set[int] = set()
        self._last_packet_id = 0
        self._granted: dict[int, int] = {}

    # Outgoing

    def add(self, message: Outgoing) -> None:
        """Take a message at QoS 1 or 2 whose slot is acquired; send it when possible."""
        self._waiting.append(message)
        self._send_waiting()

    def withdraw(self, message: Outgoing) -> None:
        """Forget a message unless it was sent."""
        if message in self._waiting and not message.sends:
            self._waiting.remove(message)
            self._finish(message, None)

    def check_granted(self, message: Outgoing) -> None:
        """Raise `TransportError` for what the broker's CONNACK rules out (3.2.2.3)."""
        granted = self._granted.get
        if message.size > granted(packets.MAXIMUM_PACKET_SIZE, message.size):
            raise _not_taken("packet too large")
        if message.qos > granted(packets.MAXIMUM_QOS, 2):
            raise _not_taken(f"QoS {message.qos} not supported")
        if message.retain and not granted(packets.RETAIN_AVAILABLE, 1):
            raise _not_taken("retain not supported")

    async def subscribe(self, link: MqttLink, topic_filter: str, qos: int) -> None:
        """Subscribe on one link. Raises `OSError` if that is lost meanwhile."""
        packet_id = self._new_packet_id()
        granted: asyncio.Future[int] = asyncio.Future()
        self._subscribing[packet_id] = granted
        self._regulate()
        version = self._options.version
        link.write(packets.encode_subscribe(packet_id, topic_filter, qos, version=version))
        try:
            await link.wait_for(granted)
        finally:
            del self._subscribing[packet_id]
            self._packet_ids.discard(packet_id)
        if granted.result() >= 0x80:
            raise TransportError(
                f"the broker refused the subscription to {topic_filter!r}: "
                f"{packets.reason_name(granted.result())}",
                hint="Check what the broker's access list lets this user read.",
            )
        if granted.result() < qos:
            log.warning("the broker grants %r QoS %d only", topic_filter, granted.result())

    def _send_waiting(self) -> None:
        """Send as much as the broker takes before it acknowledges (4.9)."""
        unsaid = 65535 if self._options.version == 5 else _WINDOW_3_1_1
        window = self._granted.get(packets.RECEIVE_MAXIMUM, unsaid)
        while self.link is not None and self._waiting and len(self._sent) < window:
            message = self._waiting.popleft()
            try:
                self.check_granted(message)
            except TransportError as error:
                self._finish(message, error)
                continue
            message.packet_id = message.packet_id or self._new_packet_id()
            self._sent[message.packet_id] = message
            self.link.write(message.encode(self._options.version))
            message.sends += 1
        self._regulate()

    def _finish(self, message: Outgoing, error: TransportError | None) -> None:
        self._packet_ids.discard(message.packet_id)
        self.slots.release()
        if message.done is None or message.done.done():  # its publisher was cancelled
            return
        if error is None:
            message.done.set_result(None)
        else:
            message.done.set_exception(error)

    def _new_packet_id(self) -> int:
        while True:
            self._last_packet_id = self._last_packet_id % 65535 + 1
            if self._last_packet_id not in self._packet_ids:
                self._packet_ids.add(self._last_packet_id)
                return self._last_packet_id

    # Incoming

    def take(self, max_batch: int) -> list[Delivery]:
        """Up to `max_batch` messages from the inbox."""
        if len(self.inbox) <= max_batch:
            batch = [*self.inbox]
            self.inbox.clear()
            self._inbox_bytes = 0
        else:
            batch = [self.inbox.popleft() for _ in range(max_batch)]
            self._inbox_bytes -= sum(map(_memory, batch))
        self._regulate()
        return batch

    def on_packet(self, link: MqttLink, first: int, body: bytes, skipped: int) -> None:
        """Take one packet from a link. Raises `TransportError` to end that link."""
        kind = first >> 4
        if link.connack.done() == (kind == packets.CONNACK):
            raise TransportError(f"the broker sent packet type {kind} out of order")
        if kind == packets.PUBLISH:
            self._on_publish(link, first, body, skipped)
        elif kind == packets.CONNACK:
            self._on_connack(link, packets.decode_connack(body, self._options.version))
        elif kind == packets.PUBREL:
            packet_id = packets.decode_ack(body).packet_id
            self.unreleased.discard(packet_id)
            link.write(packets.encode_ack(packets.PUBCOMP, packet_id))
        elif kind in (packets.PUBACK, packets.PUBREC, packets.PUBCOMP):
            self._on_ack(link, kind, packets.decode_ack(body))
        elif kind == packets.SUBACK:
            suback = packets.decode_suback(body, self._options.version)
            granted = self._subscribing.get(suback.packet_id)
            if granted is not None and not granted.done():
                granted.set_result(suback.reason)
        elif kind == packets.DISCONNECT:
            reason = packets.reason_name(body[0] if body else 0)
            raise TransportError(f"the broker disconnected: {reason}")
        elif kind != packets.PINGRESP:
            raise TransportError(f"the broker sent packet type {kind}")

    def _on_publish(self, link: MqttLink, first: int, body: bytes, skipped: int) -> None:
        if skipped:
            message = packets.decode_publish_head(first, body)
        else:
            message = packets.decode_publish(first, body, self._options.version)
        ack: Callable[[], None] = no_ack
        if message.qos:
            if message.packet_id in self.unreleased:  # 4.3.3: ours already, say so again
                link.write(packets.encode_ack(packets.PUBREC, message.packet_id))
                return
            if message.packet_id in self.unacked:
                return
            ack = _Acknowledgement(self, link, message.packet_id, message.qos)
            self.unacked[message.packet_id] = ack
        if skipped:
            self._drop(f"a message of {len(body) + skipped} bytes is too large")
            ack()
        elif self._inbox_bytes < _OVERRUN_BYTES:
            delivery = Delivery(message.topic, message.payload, message.retain, ack, message.dup)
            self.inbox.append(delivery)
            self._inbox_bytes += _memory(delivery)
            self.arrived.set()
            self._regulate()
        elif message.qos:  # it comes again on the next connection
            raise TransportError("the broker sends more than we can take")
        else:
            self._drop("messages at QoS 0 come faster than they are received")

    def _on_ack(self, link: MqttLink, kind: int, ack: packets.Ack) -> None:
        message = self._sent.get(ack.packet_id)
        if kind == packets.PUBREC and ack.reason < 0x80:
            link.write(packets.encode_ack(packets.PUBREL, ack.packet_id))
            if message is not None:
                message.released = True
        elif message is not None:
            del self._sent[ack.packet_id]
            refused = ack.reason >= 0x80
            self._finish(message, _not_taken(packets.reason_name(ack.reason)) if refused else None)
            self._send_waiting()

    def _regulate(self) -> None:
        """Stop reading while the inbox is full: it grows by one more read at most.

        Not while the broker owes us an answer: whoever publishes from the task that
        receives would wait for ever for an acknowledgement behind messages unread.
        """
        if self.link is not None:
            room = len(self.inbox) < self._options.max_incoming and self._inbox_bytes < _INBOX_BYTES
            self.link.set_reading(room or bool(self._sent or self._subscribing))

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8 ...
            log.warning("%s: dropped, %d in all", why, self.dropped)

    # Coming and going

    def _on_connack(self, link: MqttLink, connack: packets.Connack) -> None:
        # At once, not in a task: messages of a resumed session may follow directly.
        link.connack.set_result(connack)
        if connack.reason:
            return
        self.link = link
        self.changed.set()
        self._granted = connack.properties
        if not connack.session_present:
            self.unreleased.clear()
            for message in self._waiting:  # start over: a duplicate is better than a loss
                message.released = False
        link.keep_alive(connack.properties.get(packets.SERVER_KEEP_ALIVE, self._options.keepalive))
        self._send_waiting()

    def disconnected(self) -> None:
        """The link is gone: keep what has to be sent again (4.4)."""
        self.link = None
        self.changed.clear()
        self.unacked.clear()
        unanswered = list(self._sent.values())
        self._sent.clear()
        self._waiting.extendleft(reversed(unanswered))
        for message in unanswered:
            if message.sends >= _MAX_SENDS:
                self._waiting.remove(message)
                self._finish(message, _not_taken(f"each of {_MAX_SENDS} times it hung up"))

    def close(self) -> None:
        """Wake everybody who waits: there will be no other link."""
        self.closed = True
        self.disconnected()
        self.changed.set()
        self.arrived.set()
        while self._waiting:
            self._finish(self._waiting.popleft(), closed_error())


def _memory(delivery: Delivery) -> int:
    return len(delivery.payload) + len(delivery.topic) + 256


def _not_taken(reason: str) -> BrokerRefusedError:
    return BrokerRefusedError(
        f"the broker did not take the message: {reason}",
        hint="Check the broker's limits and log, and what its access list lets this user write.",
    )
