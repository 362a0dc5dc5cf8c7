"""What a `tpm:` URI says: how to reach the TPM, and what its keys depend on.

`tpm:[TCTI][;OPTION=VALUE]...`, for example `tpm:` (the kernel's resource manager,
`/dev/tpmrm0`), `tpm:device:/dev/tpmrm0;pcrs=0,7` or `tpm:swtpm:path=/run/swtpm/s`. A TCTI is
named as by the tools of tpm2-tss: `device:`, `swtpm:`, `mssim:` or `tabrmd:` and what that
one takes. Options: `pcrs`, `pin-file`, `owner-auth-file`; see `TpmUri`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

EXAMPLE = "tpm:device:/dev/tpmrm0;pcrs=0,7"
DEFAULT_TCTI = "device:/dev/tpmrm0"
TCTIS = ("device", "swtpm", "mssim", "tabrmd")

MAX_SOCKET_PATH = 102
"""sun_path holds 107 bytes, and the control socket's name is `.ctrl` longer."""

_STATIC_PCRS = range(16)


class UriError(ValueError):
    """What is wrong with a URI, in words; the provider makes it an error of this package."""


@dataclass(frozen=True, slots=True)
class TpmUri:
    """A parsed URI.

    `pcrs`: the registers of the SHA-256 bank that the sealed keys depend on, ascending; none
    by default. `pin_file`: a file with a PIN that unsealing needs as well. `owner_auth_file`:
    the owner hierarchy's authorisation, where somebody set one.
    """

    tcti: str = DEFAULT_TCTI
    pcrs: tuple[int, ...] = ()
    pin_file: Path | None = None
    owner_auth_file: Path | None = None

    @property
    def emulated(self) -> bool:
        """Whether the way to it already says that it is an emulator."""
        return self.tcti.startswith(("swtpm", "mssim"))


def parse_uri(rest: str) -> TpmUri:
    """Takes apart what follows `tpm:`. `UriError` for anything that is not understood."""
    tcti, *options = rest.split(";")
    said: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if name not in ("pcrs", "pin-file", "owner-auth-file"):
            raise UriError(f"the option {name[:80]!r} is not known")
        if not equals or not value:
            raise UriError(f"the option {name} needs a value")
        if name in said:
            raise UriError(f"the option {name} is given twice")
        said[name] = value
    return TpmUri(
        _parse_tcti(tcti),
        _parse_pcrs(said["pcrs"]) if "pcrs" in said else (),
        _absolute("pin-file", said.get("pin-file")),
        _absolute("owner-auth-file", said.get("owner-auth-file")),
    )


def _parse_tcti(tcti: str) -> str:
    if not tcti:
        return DEFAULT_TCTI
    name, _, conf = tcti.partition(":")
    if name not in TCTIS or "\0" in conf:
        raise UriError(f"{tcti[:80]!r} is no way to a TPM: {', '.join(TCTIS)}")
    if name == "device" and not conf.startswith("/"):
        raise UriError("device: needs a full path, such as /dev/tpmrm0")
    path = socket_path(tcti)
    if path is not None and not path.startswith("/"):
        raise UriError("path= needs a full path")
    if path is not None and len(path.encode()) > MAX_SOCKET_PATH:
        raise UriError(f"the path of the socket is longer than {MAX_SOCKET_PATH} bytes")
    return tcti


def socket_path(tcti: str) -> str | None:
    """The Unix socket that a TCTI of swtpm or mssim names, if it names one."""
    name, _, conf = tcti.partition(":")
    if name not in ("swtpm", "mssim"):
        return None
    for part in conf.split(","):
        key, _, value = part.partition("=")
        if key == "path":
            return value
    return None


def _parse_pcrs(value: str) -> tuple[int, ...]:
    parts = value.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 3 for part in parts):
        raise UriError("pcrs takes numbers with commas between them, such as 0,7")
    numbers = [int(part) for part in parts]
    for number in numbers:
        if number not in _STATIC_PCRS:
            # PCR 16 and 23 by any program, 17 to 22 by a dynamic launch (PC Client Platform
            # TPM Profile, section 4.6): what can be put back proves nothing.
            raise UriError(f"PCR {number} can be reset while the TPM runs: choose from 0 to 15")
    if len(set(numbers)) != len(numbers):
        raise UriError("a PCR is named twice")
    return tuple(sorted(numbers))


def _absolute(name: str, value: str | None) -> Path | None:
    # The URI is stored with the keys, and used from whatever folder the next start is in.
    if value is None:
        return None
    if not value.startswith("/") or "\0" in value:
        raise UriError(f"{name} needs a full path, {value[:80]!r} is none")
    return Path(value)
