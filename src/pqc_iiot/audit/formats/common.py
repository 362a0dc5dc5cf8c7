"""What every format needs to know of a record beyond its attributes."""

from __future__ import annotations

import calendar
import functools
import json
from collections.abc import Mapping
from typing import Final, TypeAlias

from ..catalogue import EVENTS
from ..record import AuditRecord, leaf_hash

PRODUCT: Final = "PQC-IIoT"

Json: TypeAlias = "str | int | bool | Mapping[str, Json] | list[Json]"


@functools.cache
def version() -> str:
    """This package's version."""
    from importlib import metadata  # slow to import

    return metadata.version("pqc-iiot")


def milliseconds(record: AuditRecord) -> int:
    """The record's time in milliseconds since 1970 (UTC)."""
    time = record.time
    date = int(time[:4]), int(time[5:7]), int(time[8:10])
    seconds = calendar.timegm((*date, int(time[11:13]), int(time[14:16]), int(time[17:19])))
    return seconds * 1000 + int(time[20:23])


def digest(record: AuditRecord) -> str:
    """The hash of the record's line, 64 hex digits: unique, and what the chain holds."""
    return leaf_hash(record.encode())


def sentence(record: AuditRecord) -> str:
    """What happened, for a person: the catalogue's sentence, or the event's name."""
    row = EVENTS.get(record.event)
    return row.when if row else record.event


def dump(document: Mapping[str, Json]) -> str:
    """JSON on one line, printable ASCII only: no text in it can end the line."""
    return json.dumps(document, separators=(",", ":"))
