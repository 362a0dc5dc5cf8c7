"""One network connection to a broker: packets out, packets in, and one reason at its end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import TransportError
from . import mqtt_packets as packets
from .mqtt_options import MqttOptions

_CLOSE_TIMEOUT = 1.0
"""Seconds that a broker gets to hang up."""

_NAMES = {4: "MQTT 3.1.1", 5: "MQTT 5"}

_COALESCE_PACKETS = 128
_COALESCE_BYTES = 1 << 14

T = TypeVar("T")

PacketHandler = Callable[["MqttLink", int, bytes, int], None]
"""Takes a link, a packet's first byte, its body and how many bytes of it were skipped."""

LossHandler = Callable[["MqttLink", str], None]
"""Takes a link and why it was lost."""


class MqttLink(asyncio.Protocol):
    """Reads, writes and keeps alive until `lost` has a reason; never comes back.

    `connack` gets the broker's answer. A packet handler that raises `TransportError`
    ends the connection. The loss handler runs before anybody who awaits `lost`.
    """

    def __init__(self, on_packet: PacketHandler, on_lost: LossHandler, max_packet: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.connack: asyncio.Future[packets.Connack] = self._loop.create_future()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.error: Exception | None = None
        self._on_packet = on_packet
        self._on_lost = on_lost
        self._reader = packets.PacketReader(max_packet)
        self._reason = ""
        self._outgoing: list[bytes] = []
        self._writable = asyncio.Event()
        self._reading = True
        self._closing = False
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
        if self._closing:
            return
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
        if self._timer is not None:
            self._timer.cancel()
        self._outgoing.clear()
        reason = self._reason or str(exc or "the broker closed the connection")
        self.error = exc or ConnectionResetError(reason)
        self.lost.set_result(reason)
        self._on_lost(self, reason)
        self._writable.set()

    def write(self, packet: bytes) -> None:
        """Send a packet, together with others of this turn of the loop; drop it if lost."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(packet)
        if len(self._outgoing) >= _COALESCE_PACKETS or len(packet) >= _COALESCE_BYTES:
            self._flush()

    @property
    def ready(self) -> bool:
        """Whether the network takes more now."""
        return self._writable.is_set() and not self.lost.done()

    async def take_turn(self) -> bool:
        """Wait until the network takes more; False if the link is lost before."""
        while not self._writable.is_set():
            await self._writable.wait()
        return not self.lost.done()

    async def write_paced(self, packet: bytes) -> None:
        """Send a packet; after a burst, let the loop do its other work."""
        self.write(packet)
        if not self._outgoing:
            await asyncio.sleep(0)

    async def wait_for(self, answer: asyncio.Future[T], timeout: float | None = None) -> T:
        """Wait for something that comes through this link.

        Raises `OSError` if the link is lost, `asyncio.TimeoutError` after `timeout`
        seconds.
        """
        waiting: set[asyncio.Future[Any]] = {answer, self.lost}
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise self.error or asyncio.TimeoutError

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
        self.write(packets.PINGREQ)
        self.keep_alive(seconds)

    def fail(self, reason: str) -> None:
        """End the connection at once."""
        self._reason = self._reason or reason
        self._transport.abort()

    async def close(self, farewell: bytes = b"") -> None:
        """Say farewell and let the broker hang up; without either, hang up at once.

        Closing first would reset the connection if anything is unread by then, and the
        broker would lose what we sent last.
        """
        self._reason = self._reason or "closed"
        if farewell and not self.lost.done():
            self.set_reading(True)
            self._closing = True
            self.write(farewell)
            self._flush()
            await asyncio.wait({self.lost}, timeout=_CLOSE_TIMEOUT)
        self._transport.abort()
        await asyncio.wait({self.lost})

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and not self._transport.is_closing():
            self._transport.write(b"".join(outgoing))


async def dial(
    options: MqttOptions, connect: bytes, on_packet: PacketHandler, on_lost: LossHandler
) -> MqttLink:
    """A link whose broker has accepted the packet `connect`.

    Raises `TransportError` with a hint if there is none, `InvalidInputError` if the TLS
    files are no good.
    """
    try:
        _, link = await asyncio.wait_for(
            asyncio.get_running_loop().create_connection(
                lambda: MqttLink(on_packet, on_lost, options.max_packet),
                options.host,
                options.port,
                ssl=options.tls_context(),
            ),
            options.connect_timeout,
        )
    except (OSError, UnicodeError, asyncio.TimeoutError) as error:
        raise _unreachable(options, error) from error
    try:
        link.write(connect)
        connack = await link.wait_for(link.connack, options.connect_timeout)
        if connack.reason:
            raise _refused(options, connack.reason)
    except (OSError, asyncio.TimeoutError) as error:
        await link.close()
        raise _unreachable(options, error) from error
    except BaseException:
        await link.close()
        raise
    return link


def _unreachable(options: MqttOptions, error: Exception) -> TransportError:
    reason = str(error)
    hint = (
        f"Check host and port, that the broker runs, whether it speaks {_NAMES[options.version]} "
        f"(else set version={9 - options.version}), and whether it wants mqtts:// or mqtt://."
    )
    if isinstance(error, asyncio.TimeoutError):
        reason = f"no answer within {options.connect_timeout:g} s"
    elif isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate does not verify: {error.verify_message}"
        hint = "Give its authority as ca_file, and call the broker by the name in its certificate."
    elif isinstance(error, ssl.SSLError):
        hint = "Does this port speak TLS? A broker may also want cert_file and key_file."
    elif isinstance(error, socket.gaierror):
        hint = "Check the host name and this machine's name server."
    return TransportError(
        f"no connection to {options.host} port {options.port}: {reason}", hint=hint
    )


def _refused(options: MqttOptions, reason: int) -> TransportError:
    hint = {
        packets.UNSUPPORTED_VERSION: f"It may not speak {_NAMES[options.version]}: "
        f"set version={9 - options.version}.",
        packets.BAD_CLIENT_ID: "Give another client_id.",
        packets.BAD_CREDENTIALS: "Check the user in the URL and password_file.",
        packets.NOT_AUTHORIZED: "Check the user in the URL and password_file.",
    }.get(reason, "The broker's log says more.")
    return TransportError(
        f"{options.host} port {options.port} refused the connection: {packets.reason_name(reason)}",
        hint=hint,
    )
