"""What every sink is, and what sinks share."""

from __future__ import annotations

import errno
import os
import ssl
import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from ..formats import FORMATS
from ..record import AuditRecord
from .config import SinkConfig

TIMEOUT: Final = 10.0
"""Seconds that one step over the network may take."""


class Sink(ABC):
    """Takes records to one place; its worker is the only thread that uses it.

    `batch` is how many records `deliver` gets at most. `pause` is how many seconds the
    receiver asked to be left alone after a failure.
    """

    batch: ClassVar[int] = 500

    def __init__(self, config: SinkConfig) -> None:
        self.config = config
        self.format = FORMATS[config.format]
        self.pause = 0.0

    @abstractmethod
    def deliver(self, records: Sequence[AuditRecord]) -> int:
        """Deliver records in order; return how many of them the receiver refused for good.

        Returns only when as much as the protocol can say is known of their arrival.
        Raises `OSError` where all of them must be tried again.
        """

    def delivered(self) -> int:
        """The highest `seq` that is known to have arrived, if the sink itself can tell."""
        return 0

    def close(self) -> None:
        """Give up what is open."""
        return


def tls_context(config: SinkConfig) -> ssl.SSLContext:
    """TLS as a client: the server's certificate and name are verified, always."""
    context = ssl.create_default_context(cafile=config.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.cert_file:
        require_private(config.key_file)
        # A key under a passphrase would make OpenSSL ask at the terminal.
        context.load_cert_chain(config.cert_file, config.key_file, password="")
    return context


def require_private(path: str) -> None:
    """Raises `PermissionError` where others can read or write a file with a secret."""
    if stat.S_IMODE(Path(path).stat().st_mode) & 0o077:
        raise PermissionError(errno.EACCES, "others can read or write it: chmod 600", path)


def error_name(error: OSError) -> str:
    """The operating system's name of an error, or that of its class."""
    if isinstance(error, ssl.SSLError):
        return type(error).__name__
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def error_text(error: OSError) -> str:
    """What went wrong, for a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message}"
    if error.errno is not None and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno) if not error.strerror else error.strerror
    return str(error) or type(error).__name__
