"""The untrusted middle: an MQTT broker in this process, and a client that no device knows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from types import TracebackType

from ..errors import PqcIiotError
from .arrivals import Arrivals

try:
    from amqtt.broker import Broker as _Broker
    from amqtt.broker import BrokerContext
    from amqtt.client import MQTTClient
    from amqtt.plugins.base import BasePlugin
except ImportError as cause:
    raise PqcIiotError(
        f"the demonstration's MQTT broker is not installed: {cause}",
        hint="pip install 'pqc-iiot[demo]'",
    ) from cause

# Its warnings are about clients that leave, which here is part of the play.
logging.getLogger("amqtt").setLevel(logging.CRITICAL)
logging.getLogger("transitions").setLevel(logging.CRITICAL)


class SubscriptionNotes(BasePlugin[BrokerContext]):  # type: ignore[misc]
    """Notes who has subscribed to what: then a message published there gets there."""

    def __init__(self, context: BrokerContext) -> None:
        super().__init__(context)
        self.topics: Arrivals[str] = Arrivals()

    async def on_broker_client_subscribed(self, *, client_id: str, topic: str, qos: int) -> None:
        """Called by the broker."""
        self.topics.add(topic)


class EmbeddedBroker:
    """A broker on a free port of the loopback interface, open to everyone there."""

    def __init__(self) -> None:
        self._broker = _Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0"}},
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
                    f"{__name__}.{SubscriptionNotes.__name__}": {},
                },
            }
        )
        (self._notes,) = (
            plugin
            for plugin in self._broker.plugins_manager.plugins
            if isinstance(plugin, SubscriptionNotes)
        )
        self.url = ""

    @property
    def subscriptions(self) -> Arrivals[str]:
        """Topic filters, in the order in which clients subscribed to them."""
        return self._notes.topics

    async def __aenter__(self) -> EmbeddedBroker:
        await self._broker.start()
        (socket,) = self._broker._servers["default"].instance.sockets
        self.url = f"mqtt://127.0.0.1:{socket.getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._broker.shutdown()


class PlainClient:
    """A client of the broker that is no device: sees every message, publishes anything.

    It is amqtt's client, not this package's: what it shows is what anyone sees there.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = MQTTClient(config={"auto_reconnect": False})
        self._reading: asyncio.Task[None] | None = None
        self.seen: Arrivals[tuple[str, bytes]] = Arrivals()
        """Topic and payload of each message."""

    async def __aenter__(self) -> PlainClient:
        await self._client.connect(self._url)
        await self._client.subscribe([("#", 1)])
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        await self._client.disconnect()

    async def publish(self, topic: str, payload: bytes) -> None:
        """Publishes whatever it is told to, and returns when the broker has it."""
        await self._client.publish(topic, payload, qos=1)

    async def _read(self) -> None:
        while True:
            message = await self._client.deliver_message()
            self.seen.add((message.topic, bytes(message.data)))
