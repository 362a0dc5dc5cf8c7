"""MQTT 3.1.1 and 5: one client of one broker that comes back by itself.

What is where: `mqtt_options` says how to reach the broker, `mqtt_packets` turns bytes
into values, `mqtt_link` is one network connection, and this module is the session that
outlives it: who waits for an acknowledgement, what has to be sent again, what was
subscribed to, and how much may pile up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InvalidInputError, PqcIiotError, TransportError
from . import Delivery, Transport, check_filter, check_topic
from . import mqtt_packets as packets
from .mqtt_link import MqttLink
from .mqtt_options import MqttOptions

__all__ = ["MqttOptions", "MqttTransport"]

log = logging.getLogger(__name__)

_OUTAGE_EXPIRY = 300
"""Seconds for which an MQTT 5 broker keeps a session that nobody asked to keep, so that
a broken connection costs no message; closing ends it at once."""

_MAX_SENDS = 5
"""A message that loses its connection this often is at fault, and its publisher hears."""

_INBOX_BYTES = 8 << 20
_OVERRUN = 8
"""How far beyond its bounds the inbox may grow while the broker owes us an answer."""

_OVERHEAD = 10
"""Bytes of a PUBLISH beyond topic and payload, at most."""


def _nothing() -> None:
    pass


@dataclass(slots=True, eq=False)
class _Outgoing:
    """A message at QoS 1 or 2 that its publisher waits for."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    done: asyncio.Future[None]
    packet_id: int = 0
    released: bool = False  # QoS 2: PUBREC came, PUBREL is what to send
    sends: int = 0


class _Acknowledgement:
    """Acknowledges one delivery, once, on the connection that it came through."""

    __slots__ = ("_link", "_packet_id", "_qos", "_transport")

    def __init__(self, transport: MqttTransport, link: MqttLink, packet_id: int, qos: int) -> None:
        self._transport = transport
        self._link = link
        self._packet_id = packet_id
        self._qos = qos

    def __call__(self) -> None:
        if self._transport._unacked.get(self._packet_id) is self:
            del self._transport._unacked[self._packet_id]
            if self._qos == 2:
                self._transport._unreleased.add(self._packet_id)
            kind = packets.PUBREC if self._qos == 2 else packets.PUBACK
            self._link.write(packets.encode_ack(kind, self._packet_id))


class MqttTransport(Transport):
    """A client of the broker that `options` describe.

    `on_state(connected, reason)` is called in the event loop whenever the connection
    comes or goes. A lost connection is restored with exponential back-off and jitter,
    subscriptions included; messages that the broker has not acknowledged are sent again.
    Messages are dropped in two cases only, counted in `dropped` and logged: too large
    ones, and QoS 0 beyond all bounds while the broker owes us an answer.
    """

    def __init__(
        self, options: MqttOptions, *, on_state: Callable[[bool, str], None] | None = None
    ) -> None:
        self.dropped = 0
        self._options = options
        self._on_state = on_state
        # MQTT 3.1.1, 3.1.3.1: up to 23 letters and digits are what every broker accepts.
        self._client_id = options.client_id or "pqciiot" + secrets.token_hex(8)
        self._link: MqttLink | None = None
        self._running: asyncio.Task[None] | None = None
        self._resumes = options.session_expiry > 0
        self._closed = False
        self._changed = asyncio.Event()  # connected or closed
        # Incoming
        self._inbox: deque[Delivery] = deque()
        self._inbox_bytes = 0
        self._arrived = asyncio.Event()
        self._unacked: dict[int, _Acknowledgement] = {}
        self._unreleased: set[int] = set()  # QoS 2: acknowledged, PUBREL is to come
        # Outgoing
        self._slots = asyncio.Semaphore(options.max_outgoing)
        self._waiting: deque[_Outgoing] = deque()
        self._sent: dict[int, _Outgoing] = {}
        self._packet_ids: set[int] = set()
        self._last_packet_id = 0
        self._subscribing: dict[int, asyncio.Future[int]] = {}
        self._filters: dict[str, int] = {}
        self._granted = packets.Connack(False, 0, {})

    async def connect(self) -> None:
        """See `Transport.connect`. Later outages are not errors: it reconnects for ever."""
        if self._running is not None or self._closed:
            raise TransportError("this transport was connected before", hint="Make a new one.")
        await self._open()
        self._running = asyncio.create_task(self._stay_connected(), name="mqtt")

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        """See `Transport.publish`. Cancelled before it was sent, a message is withdrawn."""
        check_topic(topic)
        _check_qos(qos)
        message = _Outgoing(topic.encode(), payload, qos, retain, asyncio.Future())
        if message.size > self._options.max_packet:
            raise InvalidInputError(
                f"a message of {message.size} bytes",
                hint=f"Keep it within {self._options.max_packet} bytes, or raise max_packet.",
            )
        if qos == 0:
            while True:
                link = await self._connected()
                self._check_granted(message)
                if await link.write_paced(self._encode(message)):
                    return
        self._check_open()
        await self._slots.acquire()
        self._waiting.append(message)
        if self._closed:
            self._finish(self._waiting.pop(), _closed())
        self._send_waiting()
        try:
            await message.done
        except asyncio.CancelledError:
            if message in self._waiting and not message.sends:
                self._waiting.remove(message)
                self._finish(message)
            raise

    async def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """See `Transport.subscribe`."""
        check_filter(topic_filter)
        _check_qos(qos)
        while self._filters.get(topic_filter) != qos:
            link = await self._connected()
            with contextlib.suppress(ConnectionError):  # lost: once more on the next one
                await self._request(link, topic_filter, qos)
                self._filters[topic_filter] = qos

    async def receive(self, max_batch: int = 256) -> list[Delivery]:
        """See `Transport.receive`."""
        self._check_open()
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
            self._check_open()
        batch = [self._inbox.popleft() for _ in range(min(max_batch, len(self._inbox)))]
        self._inbox_bytes -= sum(len(delivery.payload) for delivery in batch)
        self._regulate()
        return batch

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        if self._closed:
            return
        self._closed = True
        self._changed.set()
        self._arrived.set()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        link = self._link
        self._disconnected("closed")
        while self._waiting:
            self._finish(self._waiting.popleft(), _closed())
        if link is not None:
            ends = {} if self._options.session_expiry else {packets.SESSION_EXPIRY: 0}
            await link.close(
                packets.encode_disconnect(version=self._options.version, properties=ends)
            )

    # The connection

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        longest = self._options.max_reconnect_delay
        attempt = 0
        while True:
            if self._link is not None:
                since = loop.time()
                await asyncio.wait({self._link.lost})
                attempt = 0 if loop.time() - since > longest else attempt
            delay = min(longest, 0.5 * 2 ** min(attempt, 20)) * random.uniform(0.5, 1)  # noqa: S311
            attempt += 1
            await asyncio.sleep(delay)
            try:
                await self._open()
            except PqcIiotError as error:
                log.warning("%s; %s", error, error.hint)

    async def _open(self) -> None:
        """Connect and restore what was there, or raise and leave nothing behind."""
        options = self._options
        password = options.read_password()
        try:
            _, link = await asyncio.wait_for(
                asyncio.get_running_loop().create_connection(
                    lambda: MqttLink(self._on_packet, self._on_lost, options.max_packet),
                    options.host,
                    options.port,
                    ssl=options.tls_context(),
                ),
                options.connect_timeout,
            )
        except (OSError, UnicodeError, asyncio.TimeoutError) as error:
            raise _unreachable(error, options) from error
        try:
            link.write(self._encode_connect(password))
            await asyncio.wait(
                {link.connack, link.lost},
                timeout=options.connect_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not link.connack.done():
                error = link.error or ConnectionError(link.lost.result()) if link.lost.done() else asyncio.TimeoutError()
                raise _unreachable(error, options)
            connack = link.connack.result()
            if connack.reason:
                raise _refused(connack.reason, options)
            if not connack.session_present:
                for topic_filter, qos in self._filters.items():
                    await self._request(link, topic_filter, qos)
        except BaseException as error:
            self._disconnected(str(error))
            await link.close(b"")
            if isinstance(error, ConnectionError):
                raise _unreachable(error, options) from error
            raise
        self._resumes = options.session_expiry > 0 or options.version == 5
        self._tell(True, "connected")
