"""Syslog as in RFC 5424, over UDP (RFC 5426), TCP (RFC 6587, octet counting) and TLS (RFC 5425).

    <109>1 2026-02-03T04:05:06.789Z press-4 pqc-iiot - PQC-4007 [meta sequenceId="7"] {…}

The facility is 13 (log audit), MSGID the event's id, `sequenceId` the record's `seq`.

Syslog has no acknowledgement. So each batch has a connection of its own, and its orderly
end is the acknowledgement: we close our side, and the receiver closes its own after it has
read everything. With TLS that is close_notify, which nobody between the two can forge. A
receiver that dies with anything unread resets the connection instead, and the whole batch
is sent again: that is where duplicates come from, and that none is lost. One that dies after
reading and before writing ends a plain connection like one that lives; so there the end
counts once the receiver has also taken and ended an empty connection after it. What it has
read and acknowledged is its own to keep. UDP has nothing like it: what is lost there is
lost unnoticed.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from typing import ClassVar, Final

from ..catalogue import Severity
from ..record import AuditRecord
from .base import TIMEOUT, Sink, tls_context

_FACILITY: Final = 13
_SEVERITIES: Final = {
    Severity.INFORMATIONAL: 6,
    Severity.LOW: 5,
    Severity.MEDIUM: 4,
    Severity.HIGH: 3,
    Severity.CRITICAL: 2,
}
_LAST_SEQUENCE_ID: Final = 2**31 - 1  # RFC 5424, section 7.3.1
_BOM: Final = b"\xef\xbb\xbf"


class SyslogSink(Sink):
    """What the three transports share: the message."""

    def message(self, record: AuditRecord) -> bytes:
        """One syslog message."""
        priority = 8 * _FACILITY + _SEVERITIES[record.severity]
        sequence_id = (record.seq - 1) % _LAST_SEQUENCE_ID + 1
        header = (
            f"<{priority}>1 {record.time} {_name(record.device, 255)} pqc-iiot - "
            f'{_name(record.id, 32)} [meta sequenceId="{sequence_id}"] '
        )
        text = self.format(record)
        return header.encode("ascii") + (b"" if text.isascii() else _BOM) + text.encode()


class SyslogUdp(SyslogSink):
    """One datagram per record; a refusal by the receiver's host is noticed, a loss is not."""

    batch: ClassVar[int] = 50
    _BREAK: Final = 0.02  # seconds after each batch, so that receivers keep up

    def deliver(self, records: Sequence[AuditRecord]) -> int:
        """See `Sink`."""
        host, port = self.config.address
        ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM
        )
        with socket.socket(family, kind, protocol) as udp:
            udp.settimeout(TIMEOUT)
            udp.connect(address)
            for record in records:
                udp.send(self.message(record))
            time.sleep(self._BREAK)
            if error := udp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "the receiver's host refused the datagrams")
        return 0


class SyslogTcp(SyslogSink):
    """One connection per batch; its end is the acknowledgement."""

    def deliver(self, records: Sequence[AuditRecord]) -> int:
        """See `Sink`."""
        self._exchange(self._frames(records))
        self._exchange(b"")  # only a receiver that is alive accepts and ends this one as well
        return 0

    def _frames(self, records: Sequence[AuditRecord]) -> bytes:
        messages = [self.message(record) for record in records]
        return b"".join(b"%d %b" % (len(message), message) for message in messages)

    def _exchange(self, data: bytes) -> None:
        """Send this over a connection of its own and await its end.

        Raises `OSError` where that is not orderly.
        """
        with socket.create_connection(self.config.address, TIMEOUT) as tcp:
            tcp.sendall(data)
            tcp.shutdown(socket.SHUT_WR)
            while tcp.recv(4096):
                pass  # a receiver has nothing to say
            _require_acknowledged(tcp)


class SyslogTls(SyslogTcp):
    """The same over TLS, with the receiver's certificate and name verified."""

    batch: ClassVar[int] = 1000
    _PATIENCE: Final = 0.1  # seconds at least

    def deliver(self, records: Sequence[AuditRecord]) -> int:
        """See `Sink`."""
        self._exchange(self._frames(records))
        if "confirm" in self.config.options:
            self._exchange(b"")  # an end without close_notify proves no more than one of TCP
        return 0

    def _exchange(self, data: bytes) -> None:
        context = tls_context(self.config)
        host, port = self.config.address
        with (
            socket.create_connection((host, port), TIMEOUT) as tcp,
            context.wrap_socket(tcp, server_hostname=host, do_handshake_on_connect=False) as tls,
        ):
            self._shake_hands(tls)
            tls.sendall(data)
            self._await_close_notify(tls)

    def _shake_hands(self, tls: ssl.SSLSocket) -> None:
        """With TLS 1.3 our side is done before the receiver has looked at our certificate,
        and many look at the name in it later still. One that refuses us then hangs up, in
        all order: that must not pass for an acknowledgement, so it gets the time to do it.
        """
        start = time.monotonic()
        tls.do_handshake()
        tls.settimeout(max(self._PATIENCE, 2 * (time.monotonic() - start)))
        try:
            if not tls.recv(1):
                raise ConnectionRefusedError("the receiver hung up after the handshake")
        except TimeoutError:
            pass  # it waits for us
        tls.settimeout(TIMEOUT)

    def _await_close_notify(self, tls: ssl.SSLSocket) -> None:
        try:
            tls.unwrap()
        except ssl.SSLEOFError:
            if "confirm" not in self.config.options:
                raise ConnectionAbortedError(
                    "the receiver ended TLS without close_notify, so that nobody knows what it"
                    " has read; if it always does (rsyslog's gtls driver), add ?confirm=eof"
                ) from None


def _require_acknowledged(tcp: socket.socket) -> None:
    """Raises `ConnectionAbortedError` where the other end closed before all had come: a host
    acknowledges nothing that reaches a closed socket."""
    (unacknowledged,) = struct.unpack("i", fcntl.ioctl(tcp, termios.TIOCOUTQ, bytes(4)))
    if unacknowledged:
        raise ConnectionAbortedError("the receiver hung up before it had got everything")


def _name(text: str, limit: int) -> str:
    """A header field: printable ASCII without spaces, "-" for nothing."""
    return "".join(c if "!" <= c <= "~" else "?" for c in text[:limit]) or "-"
