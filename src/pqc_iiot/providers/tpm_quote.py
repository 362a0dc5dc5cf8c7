"""Checking a TPM's quote, on any machine: nothing here needs a TPM or its libraries.

Formats: TPM 2.0 Library Specification, Part 2, 10.12 (attestation), 12.2 (public areas).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn

from .._core import ecdsa_verify
from ..errors import AuthenticationError
from .base import Evidence

KIND = "tpm2"
PCR = "pcr"
"""`Evidence.more` holds each register's value under this name and its number."""

_GENERATED = 0xFF544347
_ATTEST_QUOTE = 0x8018
_SHA256, _NULL, _ECC, _ECDSA, _P256 = 0x000B, 0x0010, 0x0023, 0x0018, 0x0003
_AK_ATTRIBUTES = 0x00050072
"""restricted, sign, fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth (8.3)."""
_AK_OPTIONAL = 0x00000400
"""noDA."""


class _Reader:
    """Big-endian numbers and sized buffers, to the last byte."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            _refuse("it is cut short")
        self._at += size
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    def end(self) -> None:
        if self._at != len(self._data):
            _refuse("bytes are left over")


def verify(evidence: Evidence, nonce: bytes) -> dict[str, str]:
    """What a genuine quote over `nonce` says, as facts to show.

    They hold if the attestation key is the device's: compare its name with the one that was
    noted when the device was set up. `AuthenticationError` for anything else than a quote
    that this key signed inside a TPM over this nonce and these PCR values.
    """
    if evidence.kind != KIND:
        _refuse(f"it is of kind {evidence.kind[:40]!r}")
    point, name = _attestation_key(evidence.key)
    if not ecdsa_verify(point, evidence.statement, evidence.signature):
        _refuse("the signature is not the attestation key's")
    reader = _Reader(evidence.statement)
    if reader.number(4) != _GENERATED or reader.number(2) != _ATTEST_QUOTE:
        _refuse("no TPM made this statement, or it is another one")
    reader.sized()  # the signer's qualified name: what is above the key, which nothing here knows
    if not hmac.compare_digest(reader.sized(), nonce):
        _refuse("it answers another nonce: an old quote, or another device's")
    clock, resets, restarts = reader.number(8), reader.number(4), reader.number(4)
    safe = reader.number(1)
    reader.number(8)  # the firmware's version: obfuscated for such a key (Part 1, 36.7)
    pcrs = _selection(reader)
    digest = reader.sized()
    reader.end()
    values = dict(evidence.more)
    try:
        quoted = [values[f"{PCR}{number}"] for number in pcrs]
    except KeyError as missing:
        _refuse(f"the value of {missing} is missing")
    if hashlib.sha256(b"".join(quoted)).digest() != digest:
        _refuse("the PCR values are not those that were quoted")
    return {
        "attestation key": name.hex(),
        "assurance": "CLAIMED: nothing certifies the key, compare its name with the noted one",
        "nonce": nonce.hex(),
        "PCRs": ",".join(map(str, pcrs)),
        **{f"PCR {number}": value.hex() for number, value in zip(pcrs, quoted, strict=True)},
        "PCR digest": digest.hex(),
        # Obfuscated as well, by numbers that stay the same: differences count.
        "reset count (offset)": str(resets),
        "restart count (offset)": str(restarts),
        "clock": f"{clock / 1000:.0f} s{'' if safe else ', not safe'}",
    }


def _attestation_key(public: bytes) -> tuple[bytes, bytes]:
    """The point and the Name of a key that can only sign a TPM's own statements."""
    reader = _Reader(public)
    area = reader.sized()
    reader.end()
    reader = _Reader(area)
    kind, name_hash, attributes = reader.number(2), reader.number(2), reader.number(4)
    reader.sized()  # the policy
    rest = [reader.number(2) for _ in range(5)]
    x, y = reader.sized(), reader.sized()
    reader.end()
    if (kind, name_hash, rest) != (_ECC, _SHA256, [_NULL, _ECDSA, _SHA256, _P256, _NULL]):
        _refuse("the attestation key is no P-256 key for ECDSA with SHA-256")
    if attributes & ~_AK_OPTIONAL != _AK_ATTRIBUTES:
        _refuse("the attestation key could sign what a TPM did not state")
    if max(len(x), len(y)) > 32:
        _refuse("the attestation key has no point of P-256")
    name = _SHA256.to_bytes(2, "big") + hashlib.sha256(area).digest()
    return b"\x04" + x.rjust(32, b"\0") + y.rjust(32, b"\0"), name


def _selection(reader: _Reader) -> list[int]:
    if reader.number(4) != 1 or reader.number(2) != _SHA256:
        _refuse("it is not over the SHA-256 bank of PCRs")
    chosen = reader.take(reader.number(1))
    return [8 * i + bit for i, byte in enumerate(chosen) for bit in range(8) if byte >> bit & 1]


def _refuse(why: str) -> NoReturn:
    raise AuthenticationError(
        f"the quote is not genuine: {why}",
        hint="ask the device again, with a new nonce; if that fails too, look at the device",
    )
