"""Inputs that get further than garbage: something genuine with some of its bytes changed."""

from __future__ import annotations

from collections.abc import Sequence


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
