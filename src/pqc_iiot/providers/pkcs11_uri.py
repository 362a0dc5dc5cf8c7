"""What a `pkcs11:` URI says: which module, which token in it, where its PIN is.

`pkcs11:module=/usr/lib/softhsm/libsofthsm2.so;token=plant;pin-file=/etc/pqc-iiot/pin` has
the form of RFC 7512. Its own names are taken too (`?module-path=`, `&pin-source=file:`), so
that a URI from `p11tool --list-tokens` needs no rewriting. Values are percent-decoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

from ..suites import SUITES

EXAMPLE = "pkcs11:module=/usr/lib/softhsm/libsofthsm2.so;token=LABEL;pin-file=/etc/pqc-iiot/pin"

_SAME = {"module-path": "module", "pin-source": "pin-file"}
_ALGORITHMS = {name.lower(): name for s in SUITES.values() for name in (s.kem.name, s.sig.name)}
_NUMBERS = re.compile(r"(0x[0-9a-f]+|\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a token calls an algorithm: its key type, the mechanisms that make a key and use
    it, and the parameter set, or None where key type and mechanism say it all."""

    key_type: int
    generate: int
    use: int
    parameter_set: int | None = None


@dataclass(frozen=True, slots=True)
class TokenUri:
    """A parsed URI. Where `token`, `serial`, `manufacturer` or `model` is None, any will do.

    `numbers` are those of the URI, by name of algorithm: for a vendor's own mechanisms.
    """

    module: Path
    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    pin_file: Path | None = None
    numbers: Mapping[str, Numbers] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        named = (
            f"{name} {value!r}"
            for name in ("token", "serial", "manufacturer", "model")
            if (value := getattr(self, name)) is not None
        )
        return f"{', '.join(named) or 'the only token'} in {self.module}"


class UriError(ValueError):
    """What is wrong with a URI, in words; the provider makes it an error of this package."""


def parse_uri(rest: str) -> TokenUri:
    """Takes apart what follows `pkcs11:`. `UriError` for anything that is not understood."""
    said: dict[str, str] = {}
    numbers: dict[str, Numbers] = {}
    for part in re.split("[;?&]", rest):
        name, equals, value = part.partition("=")
        name = _SAME.get(name, name)
        if name in ("pin-value", "pin"):
            raise UriError("a URI is stored and shown: a PIN does not belong there, use pin-file=")
        if not equals or not value:
            raise UriError(f"{part[:80]!r} is not of the form NAME=VALUE")
        if name in said or _ALGORITHMS.get(name) in numbers:
            raise UriError(f"{name} is given twice")
        try:
            value = unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise UriError(f"the value of {name} is not UTF-8") from None
        if name in _ALGORITHMS:
            numbers[_ALGORITHMS[name]] = _parse_numbers(name, value)
        elif name in ("module", "token", "serial", "manufacturer", "model", "pin-file"):
            said[name] = value
        else:
            raise UriError(f"{name[:80]!r} is not known")
    if "module" not in said:
        raise UriError("it does not say which module to load: module=/full/path.so")
    pin_file = said.get("pin-file")
    return TokenUri(
        _absolute("module", said["module"]),
        said.get("token"),
        said.get("serial"),
        said.get("manufacturer"),
        said.get("model"),
        None if pin_file is None else _absolute("pin-file", pin_file.removeprefix("file:")),
        MappingProxyType(numbers),
    )


def _absolute(name: str, value: str) -> Path:
    # The URI is stored with the keys, and used from whatever folder the next start is in.
    if not value.startswith("/") or "\0" in value:
        raise UriError(f"{name} needs a full path, {value[:80]!r} is none")
    return Path(value)


def _parse_numbers(name: str, value: str) -> Numbers:
    parts = value.split(",")
    if len(parts) not in (3, 4) or not all(_NUMBERS.fullmatch(part) for part in parts):
        raise UriError(f"{name} takes KEY_TYPE,GENERATE,USE or these and PARAMETER_SET: numbers")
    values = [int(part, 0) for part in parts]
    if max(values) >= 1 << 32:
        raise UriError(f"a number of {name} has more than 32 bits")
    return Numbers(*values)
