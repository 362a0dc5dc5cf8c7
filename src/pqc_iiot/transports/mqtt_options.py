"""Where a broker is and how to reach it: checked once, before anything connects."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import InvalidInputError

MAX_MESSAGE = 1 << 20
"""Bytes of a protected message that every transport carries (1 MiB)."""

_USAGE = "Write mqtt://[USER@]HOST[:PORT], or mqtts:// for TLS."

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class MqttOptions:
    """How to reach one broker. Raises `InvalidInputError` for what cannot work.

    `url` is `mqtt[s]://[user@]host[:port]`; the port is 1883, or 8883 with TLS, if left
    out. A password in it is refused: it would end up in process lists and shell
    histories. TLS always verifies the broker's certificate and its name. The password
    and the TLS files are read at each connection, so they can be replaced any time.
    """

    url: str
    password_file: StrPath | None = None
    """Its first line is the password."""
    ca_file: StrPath | None = None
    """PEM; the system's authorities if left out."""
    cert_file: StrPath | None = None
    """This device's certificate (PEM) for mutual TLS, with `key_file`."""
    key_file: StrPath | None = None
    """PEM, not encrypted."""
    version: int = 5
    """5, or 4 for MQTT 3.1.1. Never negotiated."""
    client_id: str = ""
    """Random if left out."""
    session_expiry: int = 0
    """Seconds for which the broker keeps subscriptions and QoS 1 and 2 messages for this
    client id while nobody is connected with it. MQTT 3.1.1 knows only 0 and for ever."""
    keepalive: int = 60
    """Seconds; a dead connection is noticed within this time."""
    connect_timeout: float = 10.0
    """Seconds for TCP and TLS, and as many for the broker's answer."""
    max_reconnect_delay: float = 60.0
    """Seconds; the back-off starts below one second."""
    max_packet: int = MAX_MESSAGE + (1 << 17)
    """Bytes; larger messages are refused when sending and skipped when receiving."""
    max_outgoing: int = 256
    """QoS 1 and 2 messages that wait for the broker before `publish` waits too."""
    max_incoming: int = 1024
    """Messages that wait for `receive` before reading from the network stops."""
    host: str = field(init=False, repr=False)
    port: int = field(init=False, repr=False)
    tls: bool = field(init=False, repr=False)
    username: str | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:  # whose text would repeat the URL, with all that is in it
            raise InvalidInputError("a broker URL that cannot be read", hint=_USAGE) from None
        _require(
            parts.password is None,
            "a password in the broker's URL",
            "Put it into a file that only this device can read, and give password_file.",
        )
        _require(parts.scheme in ("mqtt", "mqtts"), "a broker URL of another scheme", _USAGE)
        surplus = parts.path not in ("", "/") or "?" in self.url or "#" in self.url
        _require(not surplus, "a broker URL with a path, query or fragment", _USAGE)
        _require(bool(parts.hostname), "a broker URL without a host", _USAGE)
        tls = parts.scheme == "mqtts"
        port = port if port is not None else 8883 if tls else 1883
        _require_range("port", port, 1, 65535)
        for name, value in {
            "host": parts.hostname,
            "port": port,
            "tls": tls,
            "username": unquote(parts.username) if parts.username else None,
        }.items():
            object.__setattr__(self, name, value)
        self._check()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> MqttOptions:
        """The same, for options that arrive as a mapping; unknown names are refused."""
        unknown = set(options).difference(f.name for f in fields(cls) if f.init)
        _require(not unknown, f"unknown MQTT options {sorted(unknown)}", "See MqttOptions.")
        return cls(url, **options)

    def _check(self) -> None:
        _require_text("user name", self.username or "-")
        _require_text("client id", self.client_id or "-")
        _require(
            bool(self.client_id) or self.session_expiry == 0,
            "a session_expiry without a client id",
            "Give the device its own client_id, the same after every restart.",
        )
        _require(
            self.username is not None or self.password_file is None,
            "a password without a user",
            "Put the user into the URL: mqtts://USER@HOST.",
        )
        tls_files = (self.ca_file, self.cert_file, self.key_file)
        _require(
            self.tls or tls_files == (None, None, None),
            "TLS files for a connection without TLS",
            "Use mqtts://.",
        )
        _require(
            (self.cert_file is None) == (self.key_file is None),
            "a certificate without a key, or a key without a certificate",
            "Give both cert_file and key_file.",
        )
        _require_range("MQTT version", self.version, 4, 5)
        _require_range("session_expiry", self.session_expiry, 0, 0xFFFF_FFFF)
        _require_range("keepalive", self.keepalive, 1, 65535)
        _require_range("connect_timeout", self.connect_timeout, 0.001, 3600)
        _require_range("max_reconnect_delay", self.max_reconnect_delay, 0.001, 86400)
        _require_range("max_packet", self.max_packet, 128, 268_435_455)
        _require_range("max_outgoing", self.max_outgoing, 1, 10_000)
        _require_range("max_incoming", self.max_incoming, 1, 65535)

    def read_password(self) -> bytes | None:
        """The password, or None. Raises `InvalidInputError` if its file is no good."""
        if self.password_file is None:
            return None
        try:
            with Path(self.password_file).open("rb") as file:
                password = file.read(65537).split(b"\n", 1)[0].removesuffix(b"\r")
        except OSError as error:
            raise InvalidInputError(
                f"cannot read password_file {self.password_file}: {error.strerror}",
                hint="Check the path, and that this user may read it.",
            ) from error
        _require(0 < len(password) < 65536, "an empty or endless password", "Write one line.")
        return password

    def tls_context(self) -> ssl.SSLContext | None:
        """What TLS needs, or None. Raises `InvalidInputError` if a file is no good."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert_file is not None:
                # Without any password, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password=b"")
        except OSError as error:  # ssl.SSLError is one
            raise InvalidInputError(
                f"cannot use the TLS files: {error}",
                hint="Check ca_file, cert_file and key_file: PEM, readable, key not encrypted.",
            ) from error
        return context


def _require(condition: bool, problem: str, hint: str) -> None:
    if not condition:
        raise InvalidInputError(problem, hint=hint)


def _require_range(name: str, value: float, low: float, high: float) -> None:
    _require(low <= value <= high, f"{name} of {value}", f"Use {low} to {high}.")


def _require_text(name: str, text: str) -> None:
    fits = not re.search("[\0\ud800-\udfff]", text) and 0 < len(text.encode()) < 65536
    _require(fits, f"a {name} that MQTT cannot carry", "Use 1 to 65535 bytes of UTF-8.")
