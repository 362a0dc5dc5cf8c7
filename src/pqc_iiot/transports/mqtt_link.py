"""One network connection to a broker: packets out, packets in, and one reason at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..errors import TransportError
from .mqtt_packets import PINGREQ, Connack, PacketReader

_CLOSE_TIMEOUT = 2.0
"""Seconds that a broker gets to take our last bytes."""

_COALESCE_PACKETS = 128
_COALESCE_BYTES = 1 << 14

PacketHandler = Callable[["MqttLink", int, bytes, int], None]
"""Takes a link, a packet's first byte, its body and how many bytes of it were skipped."""

LossHandler = Callable[["MqttLink"], None]


class MqttLink(asyncio.Protocol):
    """Reads, writes and keeps alive until `lost` has a reason; never comes back.

    `connack` gets the broker's answer. A packet handler that raises `TransportError`
    ends the connection. The loss handler runs before anybody who awaits `lost`.
    """

    def __init__(self, on_packet: PacketHandler, on_lost: LossHandler, max_packet: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.connack: asyncio.Future[Connack] = self._loop.create_future()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.error: Exception | None = None
        self._on_packet = on_packet
        self._on_lost = on_lost
        self._reader = PacketReader(max_packet)
        self._reason = ""
        self._outgoing: list[bytes] = []
        self._writable = asyncio.Event()
        self._reading = True
        self._silent = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio, before anything else."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._silent = False
        try:
            for first, body, skipped in self._reader.feed(data):
                self._on_packet(self, first, body, skipped)
        except TransportError as error:
            self.fail(str(error))

    def pause_writing(self) -> None:
        """Called by asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio, once."""
        self.error = exc
        if self._timer is not None:
            self._timer.cancel()
        self._outgoing.clear()
        self.lost.set_result(self._reason or str(exc or "the broker closed the connection"))
        self._on_lost(self)
        self._writable.set()

    def write(self, packet: bytes) -> None:
        """Send a packet, together with others of this turn of the loop; drop it if lost."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packet)
        if len(self._outgoing) >= _COALESCE_PACKETS or len(packet) >= _COALESCE_BYTES:
            self._flush()

    async def write_paced(self, packet: bytes) -> bool:
        """Send a packet once the network takes it; False if the link is lost before."""
        while not self._writable.is_set():
            await self._writable.wait()
        if self.lost.done():
            return False
        self.write(packet)
        if not self._outgoing:  # a burst: let the loop do its other work
            await asyncio.sleep(0)
        return True

    def set_reading(self, on: bool) -> None:
        """Stop or go on reading from the network; TCP then stops the broker."""
        if on == self._reading or self._transport.is_closing():
            return
        self._reading = on
        if on:
            self._silent = False
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def keep_alive(self, seconds: int) -> None:
        """Ping twice in that time, and fail if nothing comes back within half of it."""
        self._timer = self._loop.call_later(seconds / 2, self._ping, seconds)

    def _ping(self, seconds: int) -> None:
        if self._silent and self._reading:
            self.fail(f"nothing heard from the broker for {seconds / 2:g} s")
            return
        self._silent = True
        self.write(PINGREQ)
        self.keep_alive(seconds)

    def fail(self, reason: str) -> None:
        """End the connection at once."""
        self._reason = self._reason or reason
        self._transport.abort()

    async def close(self, farewell: bytes) -> None:
        """Send the last packet and end the connection in order, or at once if that hangs."""
        self._reason = self._reason or "closed"
        self.write(farewell)
        self._flush()
        self._transport.close()
        done, _ = await asyncio.wait({self.lost}, timeout=_CLOSE_TIMEOUT)
        if not done:
            self._transport.abort()
            await asyncio.wait({self.lost})

    def _flush(self) -> None:
        packets, self._outgoing = self._outgoing, []
        if packets and not self._transport.is_closing():
            self._transport.write(b"".join(packets))
