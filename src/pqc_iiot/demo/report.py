"""What the demonstration found out: plain data, the same for tables and for JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the summary: what should have happened, and what did."""

    name: str
    expected: str
    seen: str
    ok: bool

    @classmethod
    def compare(cls, name: str, expected: str, seen: str) -> Step:
        """A step that went well if exactly what was expected was seen."""
        return cls(name, expected, seen, expected == seen)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A device's fingerprint (64 hex digits), as it shows it and as it came to `at`."""

    device: str
    at: str
    shown: str
    announced: str


@dataclass(frozen=True, slots=True)
class Trip:
    """One reading's way: sent by a sensor, seen by the broker, got by the controller.

    Of the frame: its size in bytes, `entropy` in bits per byte, all of it in hex, and in
    `shared_run` the longest run of bytes that it has in common with the reading. `sender`
    and `recipient` are the key ids (hex) that stand in its header, with `sequence`.
    """

    topic: str
    sensor: str
    sent: str
    frame: str
    frame_size: int
    entropy: float
    shared_run: int
    sender: str
    recipient: str
    sequence: int
    got: str
    got_from: str


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack: what was done, what the controller said, and what its audit log holds.

    `code` and `hint` are the error's, and empty where a message was taken.
    """

    title: str
    done: str
    code: str
    message: str
    hint: str = ""
    event_id: str = ""
    event: str = ""
    severity: str = ""


@dataclass(frozen=True, slots=True)
class LogCheck:
    """What verification says of a log: how many records, and each problem's kind and text."""

    log: str
    records: int
    problems: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """One part of the demonstration, with its lines for the summary."""

    title: str
    steps: tuple[Step, ...]
    comparisons: tuple[Comparison, ...] = ()
    trips: tuple[Trip, ...] = ()
    attacks: tuple[Attack, ...] = ()
    checks: tuple[LogCheck, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every step went as it should."""
        return all(step.ok for step in self.steps)
