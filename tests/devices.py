"""Devices for tests: made once, copied for each test; and what they wrote into their logs."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pqc_iiot import Node, Policy, PqcIiotError
from pqc_iiot.audit import AuditRecord, tail
from pqc_iiot.store import SEEN, Row

PLAINTEXT = "software:insecure-plaintext-keys"
FALCON_512 = -65601


def make(folder: Path, name: str, suite: int = 1, policy: Policy | None = None) -> Node:
    """A new device, its keys in plain text."""
    return Node.create(folder / name, name=name, suite=suite, provider=PLAINTEXT, policy=policy)


def introduce(one: Node, other: Node) -> None:
    """Both approve each other."""
    one.peers.add_approved(other.bundle)
    other.peers.add_approved(one.bundle)


@dataclass
class Pair:
    """A sensor that sends and a controller that receives; they approved each other."""

    folder: Path
    sensor: Node
    plc: Node

    def close(self) -> None:
        """Ends both."""
        self.sensor.close()
        self.plc.close()

    def reopen(self) -> None:
        """Ends both and opens them again, as after a restart."""
        self.close()
        self.sensor = Node.open(self.folder / "sensor")
        self.plc = Node.open(self.folder / "plc")

    def frame(self, payload: bytes = b"21.5", context: str = "line1/temp") -> bytes:
        """One frame from the sensor to the controller."""
        return self.sensor.seal(payload, to="plc", context=context)


def copy(template: Path, folder: Path, *names: str) -> None:
    """Copies closed devices, with their modes."""
    for name in names:
        shutil.copytree(template / name, folder / name)


def events(node: Node) -> list[AuditRecord]:
    """Everything in a device's log so far."""
    assert node.audit.flush()
    return tail(node.audit._path, 1_000_000)


def seen_rows(node: Node) -> list[Row]:
    """What a device has stored of the numbers it accepted."""
    assert node._state is not None
    return list(node._state.store.rows(SEEN))


@contextmanager
def refused(node: Node, error: type[PqcIiotError], event: str) -> Iterator[None]:
    """What is done inside is refused with exactly this error, leaves exactly this one event
    with the error's code, and changes nothing that the device has accepted."""
    before, logged = seen_rows(node), len(events(node))
    with pytest.raises(error) as caught:
        yield
    assert type(caught.value) is error
    assert seen_rows(node) == before
    (record,) = events(node)[logged:]
    assert (record.event, record.reason) == (event, error.code)


@contextmanager
def edited(file: Path) -> Iterator[sqlite3.Connection]:
    """A store's file in the hands of somebody who knows SQLite."""
    db = sqlite3.connect(file, isolation_level=None)
    try:
        yield db
    finally:
        db.close()
