"""Inputs that get further than garbage: something genuine with some of its bytes changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any


def bend(genuine: Sequence[bytes], data: bytes) -> bytes:
    """What an input makes of one of these: byte 0 chooses it, then each edit has a kind, a
    position (2) and a byte. The rest of the input, behind a kind of 255, is put in."""
    if not data:
        return b""
    out = bytearray(genuine[data[0] % len(genuine)])
    at = 1
    while at + 4 <= len(data):
        kind, position, byte = data[at], int.from_bytes(data[at + 1 : at + 3], "big"), data[at + 3]
        at += 4
        position %= len(out) + 1
        if kind == 255:
            out[position : position + byte] = data[at:]
            break
        match kind % 4:
            case 0:
                out[position : position + 1] = bytes((byte,))
            case 1:
                out[position:position] = bytes((byte,))
            case 2:
                del out[position : position + 1 + byte]
            case _:
                out[position:position] = out[position - byte : position] if byte else b""
    return bytes(out)


_VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1 << 63, 1 << 64, 0.5, float("inf"), float("nan"), "", "0", "=",
    "\ud800", "\N{PILE OF POO}", "x" * 300, "0" * 64, [], {}, [[]], {"": ""},
)  # fmt: skip


def bend_json(genuine: Sequence[object], data: bytes) -> bytes:
    """As `bend`, of JSON documents: each edit has a place among all members, a kind, and a
    byte. From 128 on, byte 0 says that the rest is the document as it stands."""
    if not data or data[0] >= 128:
        return data[1:]
    root = [copy.deepcopy(genuine[data[0] % len(genuine)])]
    for at in range(1, len(data) - 2, 3):
        place, kind, byte = data[at : at + 3]
        places = list(_places(root))
        if len(places) > 1000:  # copies of copies
            break
        parent, key = places[place % len(places)]
        _edit(parent, key, kind, byte, places)
    return json.dumps(root[0], separators=(",", ":")).encode()


def _edit(parent: Any, key: Any, kind: int, byte: int, places: list[tuple[Any, Any]]) -> None:
    value = parent[key]
    match kind % 6, value:
        case 0, _:
            parent[key] = copy.deepcopy(_VALUES[byte % len(_VALUES)])
        case 1, str():
            at = byte % (len(value) + 1)
            parent[key] = value[:at] + chr(kind // 2) + value[at + kind % 4 // 2 :]
        case 1, int():
            parent[key] = value + byte - 128
        case 2, _ if len(places) > 1 and isinstance(parent, dict):
            del parent[key]
        case 3, _ if isinstance(parent, dict):
            parent[str(_VALUES[byte % len(_VALUES)])] = parent.pop(key)
        case 4, _:
            parent[key] = [value] * (byte % 4)
        case _:
            other, name = places[byte % len(places)]
            parent[key] = copy.deepcopy(other[name])


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every member of a document, by what holds it."""
    for key in range(len(node)) if isinstance(node, list) else list(node):
        yield node, key
        if isinstance(node[key], (list, dict)):
            yield from _places(node[key])
