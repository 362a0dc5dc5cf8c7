"""MQTT 3.1.1 and 5: one client of one broker that comes back by itself.

What is where: `mqtt_options` says how to reach the broker, `mqtt_packets` turns bytes
into values, `mqtt_link` is one network connection, `mqtt_session` what outlives it, and
this module puts them behind the `Transport` interface and reconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable

from ..errors import InvalidInputError, PqcIiotError, TransportError
from . import Delivery, Payload, Transport, check_filter, check_qos, check_topic, closed_error
from . import mqtt_packets as packets
from .mqtt_link import MqttLink, dial
from .mqtt_options import MqttOptions
from .mqtt_session import MqttSession, Outgoing

__all__ = ["MqttOptions", "MqttTransport"]

log = logging.getLogger(__name__)

_OUTAGE_EXPIRY = 300
"""Seconds for which an MQTT 5 broker keeps a session that nobody asked to keep, so that
a broken connection costs no message; closing ends it at once."""

_FIRST_RECONNECT_DELAY = 0.5
"""Seconds."""


class MqttTransport(Transport):
    """A client of the broker that `options` describe.

    `on_state(connected, reason)` is called in the event loop whenever the connection
    comes or goes. A lost connection is restored with exponential back-off and jitter,
    subscriptions included; messages that the broker has not acknowledged are sent again.
    """

    name = "mqtt"

    def __init__(
        self, options: MqttOptions, *, on_state: Callable[[bool, str], None] | None = None
    ) -> None:
        self._options = options
        self._on_state = on_state
        self._session = MqttSession(options)
        # MQTT 3.1.1, 3.1.3.1: up to 23 letters and digits are what every broker accepts.
        self._client_id = options.client_id or "pqciiot" + secrets.token_hex(8)
        self._filters: dict[str, int] = {}
        self._resumes = options.session_expiry > 0
        self._told = False
        self._running: asyncio.Task[None] | None = None

    @property
    def dropped(self) -> int:
        """Messages not delivered: too large, or QoS 0 far beyond `max_incoming`."""
        return self._session.dropped

    async def connect(self) -> None:
        """See `Transport.connect`. Later outages are no errors: it reconnects for ever."""
        if self._running is not None or self._session.closed:
            raise TransportError("this transport was connected before", hint="Make a new one.")
        await self._open()
        self._running = asyncio.create_task(self._stay_connected(), name="mqtt")

    async def publish(
        self, topic: str, payload: Payload, *, qos: int = 1, retain: bool = False
    ) -> None:
        """See `Transport.publish`. Cancelled before it was sent, a message is withdrawn."""
        check_topic(topic)
        check_qos(qos)
        self._check_open()
        if not callable(payload):
            self._outgoing(topic, payload, qos, retain)  # refused before it waits
        session = self._session
        if qos == 0:
            link = session.link
            while link is None or not (link.ready or await link.take_turn()):
                link = await self._connected()
            message = self._outgoing(topic, payload, qos, retain)
            session.check_granted(message)
            await link.write_paced(message.encode(self._options.version))
            return
        await session.slots.acquire()
        try:
            if session.closed:
                raise closed_error()
            message = self._outgoing(topic, payload, qos, retain)
        except BaseException:
            session.slots.release()
            raise
        message.done = asyncio.get_running_loop().create_future()
        session.add(message)
        try:
            await message.done
        except asyncio.CancelledError:
            session.withdraw(message)
            raise

    def _outgoing(self, topic: str, payload: Payload, qos: int, retain: bool) -> Outgoing:
        made = payload() if callable(payload) else payload
        message = Outgoing(topic.encode(), made, qos, retain)
        if message.size > self._options.max_packet:
            raise InvalidInputError(
                f"a message of {message.size} bytes",
                hint=f"Keep it within {self._options.max_packet} bytes, or raise max_packet.",
            )
        return message

    async def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """See `Transport.subscribe`."""
        check_filter(topic_filter)
        check_qos(qos)
        while self._filters.get(topic_filter) != qos:
            link = await self._connected()
            with contextlib.suppress(OSError):  # lost: again on the next one
                await self._session.subscribe(link, topic_filter, qos)
                self._filters[topic_filter] = qos

    async def receive(self, max_batch: int = 256) -> list[Delivery]:
        """See `Transport.receive`."""
        self._check_open()
        while not self._session.inbox:
            self._session.arrived.clear()
            await self._session.arrived.wait()
            self._check_open()
        return self._session.take(max_batch)

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        if self._session.closed:
            return
        link = self._session.link
        self._session.close()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        if link is not None:
            ends = {} if self._options.session_expiry else {packets.SESSION_EXPIRY: 0}
            await link.close(
                packets.encode_disconnect(version=self._options.version, properties=ends)
            )
        self._tell(False, "closed")

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        longest = self._options.max_reconnect_delay
        delay = _FIRST_RECONNECT_DELAY
        while True:
            if (link := self._session.link) is not None:
                since = loop.time()
                await asyncio.wait({link.lost})
                if loop.time() - since > longest:
                    delay = _FIRST_RECONNECT_DELAY
            await asyncio.sleep(min(delay, longest) * random.uniform(0.5, 1))  # noqa: S311
            delay = min(2 * delay, longest)
            try:
                await self._open()
            except PqcIiotError as error:
                log.warning("%s. %s", error, error.hint)

    async def _open(self) -> None:
        """Connect and subscribe again, or raise and leave nothing behind."""
        options, session = self._options, self._session
        connect = packets.encode_connect(
            self._client_id,
            version=options.version,
            clean_start=not self._resumes,
            keepalive=options.keepalive,
            properties={
                packets.SESSION_EXPIRY: options.session_expiry or _OUTAGE_EXPIRY,
                packets.RECEIVE_MAXIMUM: options.max_incoming,
                packets.MAXIMUM_PACKET_SIZE: options.max_packet,
            },
            username=options.username,
            password=options.read_password(),
        )
        link = await dial(options, connect, session.on_packet, self._on_lost)
        try:
            if not link.connack.result().session_present:
                for topic_filter, qos in self._filters.items():
                    await session.subscribe(link, topic_filter, qos)
            if link.lost.done():
                raise ConnectionError(link.lost.result())
        except BaseException as error:
            self._on_lost(link, str(error))
            await link.close()
            if isinstance(error, OSError):
                raise TransportError(
                    f"{options.host} port {options.port} accepted the connection and lost it: "
                    f"{error}",
                    hint="The broker's log may say why.",
                ) from error
            raise
        self._resumes = options.session_expiry > 0 or options.version == 5
        self._tell(True, "connected")

    def _on_lost(self, link: MqttLink, reason: str) -> None:
        if link is self._session.link:
            self._session.disconnected()
            self._tell(False, reason)

    async def _connected(self) -> MqttLink:
        while True:
            self._check_open()
            if self._session.link is not None:
                return self._session.link
            await self._session.changed.wait()

    def _check_open(self) -> None:
        if self._session.closed:
            raise closed_error()
        if self._running is None:
            raise TransportError("this transport is not connected", hint="Call connect() first.")

    def _tell(self, connected: bool, reason: str) -> None:
        if connected == self._told:
            return
        self._told = connected
        level = logging.INFO if connected or self._session.closed else logging.WARNING
        log.log(level, "%s port %d: %s", self._options.host, self._options.port, reason)
        if self._on_state is not None:
            try:
                self._on_state(connected, reason)
            except Exception:
                log.exception("on_state failed")
