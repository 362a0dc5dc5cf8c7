"""How a record is written for others: one function per format, from a record to one line.

`native` is the line of the log itself, to the byte, so that its chain can be checked
wherever it arrives. The others are made from it, lose nothing of it, and each carries the
record's `seq` and hash, by which the line of the log can be found again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from ..record import AuditRecord
from .cef import cef
from .ecs import ecs
from .ocsf import ocsf

__all__ = ["FORMATS", "Format", "cef", "ecs", "native", "ocsf"]

Format: TypeAlias = Callable[[AuditRecord], str]
"""Writes a record as one line of printable characters, without an end."""


def native(record: AuditRecord) -> str:
    """The record's line in the log, without its end."""
    return record.encode().decode("ascii")


FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {"native": native, "ocsf": ocsf, "ecs": ecs, "cef": cef}
)
"""Every format by its name."""
