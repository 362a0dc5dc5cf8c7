"""The sinks of a device: looked at at any time, changed and tested while nothing runs it."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .account import account
from .audit import AuditLog
from .audit.head import Head
from .audit.sinks import (
    MAX_SETTINGS,
    SETTINGS_FILE,
    AuditSettings,
    SinkConfig,
    Sinks,
    cursor_file,
)
from .audit.sinks.spool import Cursor
from .errors import InvalidInputError
from .folder import StateFolder, check_permissions
from .identity import public_name
from .trail import AUDIT_FILE, open_log


@dataclass(frozen=True, slots=True)
class SinkProgress:
    """A sink, and how far it has come: `delivered` is a `seq`, `waiting` and `lost` count
    records."""

    sink: SinkConfig
    delivered: int
    waiting: int
    lost: int


@dataclass(frozen=True, slots=True)
class SinkTest:
    """Whether the marked record arrived as far as the protocol can say, after how many
    `seconds`, and if not, why: `error`, or `waiting` records that are in front of it."""

    name: str
    ok: bool
    seconds: float
    error: str
    waiting: int


def list_sinks(path: str | os.PathLike[str]) -> list[SinkProgress]:
    """The sinks of the device in a folder, also while a process runs it.

    `StateError` and its kinds where the folder is missing or unsafe, `InvalidInputError`
    where `audit.json` cannot be used.
    """
    folder = Path(path)
    check_permissions(folder)
    try:
        data = (folder / SETTINGS_FILE).read_bytes()[: MAX_SETTINGS + 1]
    except FileNotFoundError:
        return []
    head = Head.read(folder / AUDIT_FILE)
    found = []
    for sink in AuditSettings.decode(data).sinks:
        cursor = Cursor.read(cursor_file(folder, sink.name))
        if head is None or cursor.log != head.log:
            cursor = Cursor()
        waiting = max(0, head.seq - cursor.seq) if head is not None else 0
        found.append(SinkProgress(sink, cursor.seq, waiting, cursor.lost))
    return found


def add_sink(path: str | os.PathLike[str], sink: SinkConfig) -> None:
    """Adds a sink; it begins with what the log still has, when the device starts next.

    Errors as `list_sinks`, `StateLockedError` while a process runs the device, and
    `InvalidInputError` where the name is taken.
    """
    with _stopped(path) as (folder, audit, settings, _):
        _write(folder, replace(settings, sinks=(*settings.sinks, sink)))
        audit.note("sink_added", sink=sink.name, url=sink.url, operator=account())


def remove_sink(path: str | os.PathLike[str], name: str) -> SinkConfig:
    """Removes a sink and its cursor. Errors as `add_sink`, where there is no such name."""
    with _stopped(path) as (folder, audit, settings, _):
        left = tuple(sink for sink in settings.sinks if sink.name != name)
        (removed,) = set(settings.sinks) - set(left) or [None]
        if removed is None:
            raise InvalidInputError(
                f"there is no sink {name!r}", hint="see them: pqc-iiot audit sinks list"
            )
        _write(folder, replace(settings, sinks=left))
        cursor_file(folder.path, name).unlink(missing_ok=True)
        audit.note("sink_removed", sink=name, url=removed.url, operator=account())
    return removed


def check_sinks(
    path: str | os.PathLike[str], *, timeout: float = 10.0
) -> tuple[str, list[SinkTest]]:
    """Sends one marked record (`sink_test`) through every sink, behind what waits there.

    Returns the marker, to look for at the other end, and what became of it within
    `timeout` seconds in all. Errors as `add_sink`.
    """
    marker = secrets.token_hex(8)
    with _stopped(path) as (_, audit, _, sinks):
        audit.note("sink_test", marker=marker, operator=account())
        audit.flush()
        seq, start = audit.durable().seq, time.monotonic()
        results = []
        for status in sinks.status() if sinks is not None else ():
            left = max(0.0, start + timeout - time.monotonic())
            ok = sinks is not None and sinks.wait(status.name, seq, left)
            results.append((status.name, ok, time.monotonic() - start))
        after = {status.name: status for status in sinks.status()} if sinks is not None else {}
        return marker, [
            SinkTest(
                name,
                ok,
                seconds,
                error="" if ok else after[name].error,
                waiting=max(0, seq - after[name].delivered),
            )
            for name, ok, seconds in results
        ]


@contextlib.contextmanager
def _stopped(
    path: str | os.PathLike[str],
) -> Iterator[tuple[StateFolder, AuditLog, AuditSettings, Sinks | None]]:
    """The folder of a device that nothing runs, with its log and its sinks."""
    folder = StateFolder(path)
    try:
        settings = AuditSettings.decode(folder.read(SETTINGS_FILE, MAX_SETTINGS))
        audit, sinks = open_log(folder, public_name(folder))
        with audit:
            yield folder, audit, settings, sinks
    finally:
        folder.close()


def _write(folder: StateFolder, settings: AuditSettings) -> None:
    data = settings.encode()
    if len(data) > MAX_SETTINGS:
        raise InvalidInputError(f"{SETTINGS_FILE} would be too long", hint="remove a sink")
    folder.write(SETTINGS_FILE, data)
