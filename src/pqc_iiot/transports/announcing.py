"""What devices show of themselves, retained: their bundles, and their use of their keys."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

from ..errors import BrokerRefusedError, ClonedIdentityError, PqcIiotError, TransportError
from ..node import Node
from . import Delivery, Transport
from .durable import Run

ANNOUNCEMENTS = "pqc-iiot/bundle/"
"""Topics on which devices show their bundles, followed by the device's name."""
PRESENCE = "pqc-iiot/presence/"
"""Topics on which devices show that their keys are in use, followed by the device's name."""
SHOWN = "pqc-iiot/"
"""What both begin with."""

WAIT = 1.0
"""Seconds for which what a broker has retained is waited for."""

log = logging.getLogger("pqc_iiot.transports.announcing")


class Announcing:
    """A bus's side of it. Nothing of it is published unless `announce` is called."""

    def __init__(
        self, node: Node, transport: Transport, run: Run, start: Callable[[], None]
    ) -> None:
        """`start` lets what arrives be taken."""
        self._node, self._transport, self._run, self._start = node, transport, run, start
        self._own = PRESENCE + node.name
        self._takes_bundles = self._looks = False
        self._record, self._came = b"", asyncio.Event()

    async def announce(self) -> None:
        """Shows bundle and presence. What the broker had under this device's name until now
        has been looked at when it returns, if the broker hands it out at all."""
        bundle, publish = self._node.bundle, self._transport.publish
        await publish(ANNOUNCEMENTS + bundle.name, bundle.encoded, retain=True)
        looks = await self._look()
        self._record = await self._run(self._node.presence.record)
        self._came.clear()
        try:
            await publish(self._own, self._record, retain=True)
        except BrokerRefusedError as error:
            log.warning("nobody can see here that this device's keys are in use: %s", error)
            return
        if looks:  # it comes back, behind what was there
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._came.wait(), WAIT)

    async def watch(self) -> None:
        """Takes in bundles of others, and looks for use of this device's keys elsewhere."""
        self._takes_bundles = True
        await self._transport.subscribe(ANNOUNCEMENTS + "+")
        self._start()  # first: a broker may wait until what it has retained was taken
        await self._look()

    async def _look(self) -> bool:
        """Whether the broker lets us see what is shown under this device's name."""
        if not self._looks:
            try:
                await self._transport.subscribe(self._own)
            except TransportError as error:
                log.warning("copies of this device go unnoticed here: %s", error)
                return False
            self._looks = True
            self._start()
        return True

    def takes(self, topic: str) -> bool:
        """Whether what comes by this topic is for `take`."""
        return (self._looks and topic == self._own) or (
            self._takes_bundles and topic.startswith(ANNOUNCEMENTS)
        )

    async def take(self, deliveries: list[Delivery]) -> None:
        """Takes in what others show, and what is shown under this device's name."""
        via = self._transport.name
        for delivery in deliveries:
            data = delivery.payload
            try:
                if delivery.topic != self._own:
                    if data != self._node.bundle.encoded:
                        await self._run(partial(self._node.peers.add, data, transport=via))
                elif data == self._record:
                    self._came.set()
                else:
                    await self._run(partial(self._node.presence.take, data, transport=via))
            except ClonedIdentityError as error:
                log.error("%s; %s", error, error.hint)
            except PqcIiotError as error:
                if delivery.topic != self._own:
                    log.warning("an announced bundle was refused: %s", error)
                else:  # anybody can put anything there, and it says nothing
                    log.info("a record of presence was refused: %s", error)
            delivery.ack()


async def shown(
    transport: Transport, *topics: str, within: float = WAIT
) -> dict[str, bytes | None]:
    """What a connected transport's broker retains on these topics; None where nothing comes
    `within` these seconds, and no entry where the broker does not let us look."""
    found: dict[str, bytes | None] = {}
    for topic in topics:
        with contextlib.suppress(TransportError):
            await transport.subscribe(topic, qos=0)  # no broker waits to be told
            found[topic] = None

    async def gather() -> None:
        while None in found.values():
            for delivery in await transport.receive():
                delivery.ack()
                if delivery.retained and delivery.topic in found:
                    found[delivery.topic] = delivery.payload

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(gather(), within)
    return found
