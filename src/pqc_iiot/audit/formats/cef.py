"""ArcSight's Common Event Format, version 0, as its implementation standard has it.

    CEF:0|PQC-IIoT|pqc-iiot|<version>|PQC-4007|refused replay|8|rt=… externalId=7 …

In the header "\\" and "|" are escaped, in the extension "\\", "=" and line ends. Keys that
begin with "pqc" are this product's own: the fields of `detail` that CEF has no key for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ..catalogue import Severity
from ..classes import classes_of
from ..record import AuditRecord
from .common import PRODUCT, digest, milliseconds, sentence, version

# 0-3 is low, 4-6 medium, 7-8 high, 9-10 very high.
_SEVERITIES: Final = {
    Severity.INFORMATIONAL: 1,
    Severity.LOW: 3,
    Severity.MEDIUM: 5,
    Severity.HIGH: 8,
    Severity.CRITICAL: 10,
}
_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "context": "request",
        "length": "in",
        "name": "shost",
        "operator": "suser",
        "path": "filePath",
        "sha256": "fileHash",
        "transport": "app",
    }
)


def cef(record: AuditRecord) -> str:
    """The record as one CEF message."""
    header = "|".join(
        map(
            _header,
            (
                PRODUCT,
                "pqc-iiot",
                version(),
                record.id,
                record.event.replace("_", " "),
                str(_SEVERITIES[record.severity]),
            ),
        )
    )
    extension = {
        "rt": str(milliseconds(record)),
        "externalId": str(record.seq),
        "dvchost": record.device,
        "act": record.event,
        "outcome": classes_of(record.id, record.event).outcome,
        "reason": record.reason,
        "suid": record.peer,
        "msg": sentence(record),
        "pqcHash": digest(record),
        "pqcPrev": record.prev,
    }
    for name, value in record.detail.items():
        extension[_KEYS.get(name) or _own_key(name)] = str(value)
    return f"CEF:0|{header}|" + " ".join(
        f"{key}={_value(value)}" for key, value in extension.items() if value
    )


def _own_key(name: str) -> str:
    """A key has letters and digits only, whatever a later version's field is called."""
    return "pqc" + "".join(part.capitalize() for part in name.split("_") if part.isalnum())


def _header(text: str) -> str:
    return _printable(text.replace("\\", "\\\\").replace("|", "\\|"))


def _value(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("=", "\\=")
    return _printable(escaped.replace("\r", "\\r").replace("\n", "\\n"))


def _printable(text: str) -> str:
    """CEF has no escape for other characters that end a line or steer a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)
