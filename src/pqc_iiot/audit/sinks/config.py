"""`audit.json` in the state folder: which sinks there are, and the bounds of the log.

    {"v": 1, "heartbeat": 300, "file_bytes": 16777216, "closed_files": 15,
     "sinks": [{"name": "siem", "url": "syslog+tls://siem.example:6514", "format": "ocsf",
                "ca_file": "/etc/pqc-iiot/siem-ca.pem"}]}

Secrets are paths of files, never values.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from ...errors import InvalidInputError
from ..formats import FORMATS
from ..segments import Retention

SETTINGS_FILE: Final = "audit.json"
MAX_SETTINGS: Final = 64 * 1024
MAX_SINKS: Final = 16
DEFAULT_HEARTBEAT: Final = 300

# Scheme: default port (0: no network), and the options that may stand behind "?".
_SCHEMES: Final[dict[str, tuple[int, frozenset[str]]]] = {
    "file": (0, frozenset({"max_bytes", "max_age", "keep"})),
    "journal": (0, frozenset()),
    "syslog+udp": (514, frozenset()),
    "syslog+tcp": (601, frozenset()),  # RFC 6587 names none; RFC 3195 has this one
    "syslog+tls": (6514, frozenset({"confirm"})),
    "otlp+http": (4318, frozenset()),
    "otlp+https": (4318, frozenset()),
}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}").fullmatch
_HINT: Final = "one of " + ", ".join(f"{scheme}:" for scheme in _SCHEMES)


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """One sink. Raises `InvalidInputError` for what cannot be meant.

    `url` is `file:///PATH?max_bytes=&max_age=&keep=` (bytes, seconds, closed files),
    `journal:`, `syslog+udp://HOST:PORT`, `syslog+tcp://…`, `syslog+tls://…` (with
    `?confirm=eof` for a receiver that ends TLS without close_notify),
    `otlp+http://HOST:PORT/v1/logs` or `otlp+https://…`. `format` is a name in
    `audit.formats.FORMATS`. `ca_file` replaces the system's authorities, `cert_file` and
    `key_file` are this device's for mutual TLS, `token_file` holds a bearer token for OTLP.
    """

    name: str
    url: str
    format: str = "native"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    token_file: str = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            if not isinstance(getattr(self, each.name), str):
                raise InvalidInputError(f"sink: {each.name} is no text")
        if not _NAME(self.name):
            raise InvalidInputError(
                f"{self.name!r} is no name for a sink", hint="use a-z, 0-9 and -, 32 at most"
            )
        if self.format not in FORMATS:
            raise self._wrong(f"no format {self.format!r}", f"one of {', '.join(FORMATS)}")
        self._check_url()
        tls = self.scheme in ("syslog+tls", "otlp+https")
        if not tls and (self.ca_file or self.cert_file or self.key_file):
            raise self._wrong(f"{self.scheme} has no certificates", "use syslog+tls or otlp+https")
        if self.token_file and self.scheme != "otlp+https":
            raise self._wrong("a token goes over otlp+https only", "leave out token_file")
        if bool(self.cert_file) != bool(self.key_file):
            raise self._wrong("cert_file and key_file belong together", "give both")

    def _check_url(self) -> None:
        if self.scheme not in _SCHEMES:
            raise self._wrong("its URL has no scheme that is known", _HINT)
        port, options = _SCHEMES[self.scheme]
        try:
            parts = self.parts
            _ = parts.port
        except ValueError as error:
            raise self._wrong(f"its URL cannot be read: {error}", _HINT) from None
        if parts.username is not None or parts.password is not None:
            raise self._wrong("a URL holds no password", "use token_file or key_file")
        if port and not parts.hostname:
            raise self._wrong("its URL names no host", f"{self.scheme}://HOST:{port}")
        if self.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
            raise self._wrong("its URL names no absolute path", "file:///var/log/pqc-iiot.log")
        if not parts.path.isprintable() or parts.fragment:
            raise self._wrong("its URL cannot be read", _HINT)
        if unknown := self.options.keys() - options:
            raise self._wrong(f"{self.scheme} has no option {min(unknown)!r}", _HINT)
        if self.options.get("confirm", "eof") != "eof":
            raise self._wrong("confirm can only be eof", "leave it out")
        for name in ("max_bytes", "max_age", "keep"):
            self.number(name, 1)

    @property
    def scheme(self) -> str:
        """What stands in front of the URL's first colon."""
        return self.url.partition(":")[0]

    @property
    def parts(self) -> SplitResult:
        """The URL, taken apart."""
        return urlsplit(self.url)

    @property
    def options(self) -> dict[str, str]:
        """What stands behind the URL's question mark."""
        return dict(parse_qsl(self.parts.query, keep_blank_values=True))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = self.parts
        return parts.hostname or "", parts.port or _SCHEMES[self.scheme][0]

    def number(self, option: str, default: int) -> int:
        """An option that is a number of at least 1."""
        text = self.options.get(option, str(default))
        if not re.fullmatch(r"[1-9][0-9]{0,11}", text):
            raise self._wrong(f"{option} is no number from 1 on", f"{option}={default}")
        return int(text)

    def _wrong(self, problem: str, hint: str) -> InvalidInputError:
        return InvalidInputError(f"sink {self.name}: {problem}", hint=hint)


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Everything in `audit.json`. `heartbeat` is in seconds, 0 is none."""

    sinks: tuple[SinkConfig, ...] = ()
    heartbeat: int = DEFAULT_HEARTBEAT
    retention: Retention = field(default_factory=Retention)

    def __post_init__(self) -> None:
        names = [sink.name for sink in self.sinks]
        if len(set(names)) < len(names):
            raise InvalidInputError("two sinks have the same name", hint="remove one")
        if len(names) > MAX_SINKS:
            raise InvalidInputError(f"more than {MAX_SINKS} sinks", hint="remove one")

    @classmethod
    def decode(cls, data: bytes | None) -> AuditSettings:
        """The settings in a file; the defaults where there is none. `InvalidInputError`."""
        if data is None:
            return cls()
        try:
            members = json.loads(data)
            if not isinstance(members, dict) or members.pop("v", None) != 1:
                raise ValueError("it is of no version that is known")
            sinks = tuple(SinkConfig(**sink) for sink in members.pop("sinks", []))
            default = Retention()
            numbers = {
                "heartbeat": DEFAULT_HEARTBEAT,
                "file_bytes": default.file_bytes,
                "closed_files": default.closed_files,
            }
            if unknown := members.keys() - numbers.keys():
                raise ValueError(f"there is no setting {min(unknown)!r}")
            numbers |= members
            for name, least in (("heartbeat", 0), ("file_bytes", 64 * 1024), ("closed_files", 1)):
                if type(numbers[name]) is not int or not least <= numbers[name] < 2**40:
                    raise ValueError(f"{name} is no number from {least} on")
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidInputError(
                f"{SETTINGS_FILE} cannot be used: {error}",
                hint=f"repair it, or remove it and add the sinks again; see {SETTINGS_FILE}",
            ) from None
        return cls(
            sinks, numbers["heartbeat"], Retention(numbers["file_bytes"], numbers["closed_files"])
        )

    def encode(self) -> bytes:
        """The file that says this."""
        sinks = [
            {name: value for name, value in asdict(sink).items() if value} for sink in self.sinks
        ]
        document = {
            "v": 1,
            "heartbeat": self.heartbeat,
            "file_bytes": self.retention.file_bytes,
            "closed_files": self.retention.closed_files,
            "sinks": sinks,
        }
        return json.dumps(document, indent=2).encode() + b"\n"
