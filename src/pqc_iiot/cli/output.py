"""What reaches a person or a program: data on standard output, messages on standard error.

Texts from outside (names, topics, payloads, a broker's reasons) reach a terminal only
through `escape`: no byte of theirs is ever obeyed by it.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_SHOWN_BYTES = 32
"""How many bytes of a binary payload people get to see."""


def escape(text: str, keep: str = "") -> str:
    """`text` with everything escaped that a terminal would obey rather than show, but for
    the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def payload_text(payload: bytes, keep: str = "") -> str:
    """A payload, safe for a terminal: on one line, but for the characters in `keep`."""
    try:
        return escape(payload.decode(), keep)
    except UnicodeDecodeError:
        rest = "…" if len(payload) > _SHOWN_BYTES else ""
        return f"0x{payload[:_SHOWN_BYTES].hex()}{rest} ({len(payload)} bytes)"


def payload_json(payload: bytes) -> dict[str, object]:
    """A payload for programs: as text where it is UTF-8, else in Base64."""
    try:
        return {"payload": payload.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"payload": base64.b64encode(payload).decode(), "encoding": "base64"}


def print_json(document: object, *, line: bool = False) -> None:
    """A document for programs; with `line` on one line, as part of a stream."""
    print(json.dumps(document, indent=None if line else 2), flush=line)


def write_bytes(data: bytes) -> None:
    """Raw bytes to standard output."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def console(*, stderr: bool = False) -> Console:
    """Rich without guesses about texts: colours on a terminal, no markup, no emoji."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def draws_blocks() -> bool:
    """Whether standard output can show bars of Unicode's block elements."""
    return "utf" in (sys.stdout.encoding or "").lower()


def table(*columns: str, rows: Iterable[Sequence[str]]) -> RenderableType:
    """A table for people; cells are escaped and folded, never cut."""
    from rich import box
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        result.add_column(column, overflow="fold")
    for row in rows:
        result.add_row(*(escape(cell, keep="\n") for cell in row))
    return result


def facts(values: Mapping[str, object]) -> RenderableType:
    """Names and values for people, one pair a line."""
    from rich.table import Table

    result = Table.grid(padding=(0, 2, 0, 0))
    result.add_column(style="bold", no_wrap=True)
    result.add_column(overflow="fold")
    for name, value in values.items():
        result.add_row(name, escape(str(value), keep="\n"))
    return result


def grouped(fingerprint: str) -> str:
    """A fingerprint (64 hex digits) in groups of four, on two lines that fit in a table."""
    groups = [fingerprint[i : i + 4] for i in range(0, len(fingerprint), 4)]
    return " ".join(groups[:8]) + "\n" + " ".join(groups[8:])


def say(kind: str, text: str) -> None:
    """A message for people, on one line that can be copied whole."""
    if kind and sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        colour = {"error": 31, "warning": 33}.get(kind, 36)
        kind = f"\x1b[1;{colour}m{kind}:\x1b[0m "
    elif kind:
        kind += ": "
    print(f"{kind}{escape(text)}", file=sys.stderr, flush=True)


def say_json(document: Mapping[str, str]) -> None:
    """A message for programs, on one line."""
    print(json.dumps(document), file=sys.stderr, flush=True)
