"""The systemd journal, by its native protocol: one datagram per record, or, for a record
that is too large for one, a sealed memory file that travels as a descriptor.

The socket is the system's, kept open by systemd while the journal restarts; a datagram that
it took arrives. Nothing is sent twice, unless this device dies between sending a batch and
noting that it did.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from ..record import AuditRecord
from .base import TIMEOUT, Sink
from .syslog import _SEVERITIES

SOCKET: Final = "/run/systemd/journal/socket"
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_TOO_LARGE: Final = (errno.EMSGSIZE, errno.ENOBUFS)


class Journal(Sink):
    """`journal:`; another socket than the system's may stand behind it as a path."""

    def deliver(self, records: Sequence[AuditRecord]) -> int:
        """See `Sink`."""
        path = unquote(self.config.parts.path) or SOCKET
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as journal:
            journal.settimeout(TIMEOUT)
            journal.connect(path)
            for record in records:
                self._send(journal, self.entry(record))
        return 0

    def entry(self, record: AuditRecord) -> bytes:
        """One entry: fields, of which those of `detail` begin with PQC_DETAIL_."""
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_SEVERITIES[record.severity]),
            "SYSLOG_IDENTIFIER": "pqc-iiot",
            "SYSLOG_FACILITY": "13",
            "PQC_SEQ": str(record.seq),
            "PQC_TIME": record.time,
            "PQC_ID": record.id,
            "PQC_EVENT": record.event,
            "PQC_REASON": record.reason,
            "PQC_DEVICE": record.device,
            "PQC_PEER": record.peer,
        }
        fields |= {
            f"PQC_DETAIL_{name.upper()}": str(value) for name, value in record.detail.items()
        }
        return b"".join(_field(name, value) for name, value in fields.items() if value)

    @staticmethod
    def _send(journal: socket.socket, entry: bytes) -> None:
        try:
            journal.send(entry)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            fd = os.memfd_create("pqc-iiot-audit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                with open(fd, "wb", closefd=False) as file:
                    file.write(entry)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
                socket.send_fds(journal, [b""], [fd])
            finally:
                os.close(fd)


def _field(name: str, value: str) -> bytes:
    """With its length in front, any value is one value, whatever stands in it."""
    data = value.encode()
    if value.isprintable():
        return f"{name}=".encode() + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
