"""The connection to a TPM: one command at a time, made again when it is lost.

Nothing of ours stays in the TPM between two operations. Few have more than three slots,
many have no resource manager in front, and whatever is loaded outlives a process that dies.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

# Otherwise every refusal, expected ones too, is a line on the standard error stream.
os.environ.setdefault("TSS2_LOG", "all+none")

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_PT, TPM2_SE, TPMA_SESSION
from tpm2_pytss.types import TPMT_SYM_DEF, TPMU_SYM_KEY_BITS, TPMU_SYM_MODE

from ..errors import ForkedProcessError, ProviderError, UnavailableError
from .tpm_errors import NO_ROOM, base_code, is_lost, meaning
from .tpm_uri import TpmUri

T = TypeVar("T")

_ATTEMPTS = 20
_PAUSE = 0.05
"""Seconds between attempts while another program holds the slots."""

_TRANSIENT, _LOADED_SESSIONS = 0x80000000, 0x02000000


class Device:
    """A TPM. `run` gives an operation the connection; safe for several threads."""

    def __init__(self, uri: TpmUri) -> None:
        self.uri = uri
        self._esys: Any = None
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._closed = False

    def run(self, doing: str, operation: Callable[[Any], T], *, again: bool = True) -> T:
        """What `operation` returns, given the ESAPI.

        Where the connection is lost, `operation` runs once more on a new one, unless `again`
        is False. `ProviderError` and its kinds for what the TPM refuses.
        """
        if os.getpid() != self._pid:
            raise ForkedProcessError(
                "this process is a fork of the one that opened the TPM",
                hint="open the device in the process that uses it",
            )
        with self._lock:
            if self._closed:
                raise ProviderError("the provider is closed")
            try:
                return self._patiently(operation)
            except TSS2_Exception as cause:
                rc = int(cause.rc)
                if not (again and is_lost(rc)):
                    raise meaning(rc, doing) from cause
            try:
                return self._patiently(operation)
            except TSS2_Exception as cause:
                raise meaning(int(cause.rc), doing) from cause

    def _patiently(self, operation: Callable[[Any], T]) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                return operation(self._connected())
            except TSS2_Exception as cause:
                self._drop()
                # Nothing was done then: other programs have their turn.
                if base_code(int(cause.rc)) not in NO_ROOM or attempt == _ATTEMPTS - 1:
                    raise
            except ProviderError:
                self._drop()
                raise
            time.sleep(_PAUSE)
        raise AssertionError

    def _connected(self) -> Any:
        if self._esys is None:
            try:
                self._esys = ESAPI(self.uri.tcti)
            except TSS2_Exception as cause:
                raise self._unreachable(int(cause.rc)) from cause
        return self._esys

    def _unreachable(self, rc: int) -> UnavailableError:
        name, _, conf = self.uri.tcti.partition(":")
        native = f"0x{rc:x}"
        if name == "device":
            try:
                os.close(os.open(conf, os.O_RDWR | os.O_CLOEXEC))
            except FileNotFoundError:
                hint = "is there a TPM, and is it switched on in the firmware? (ls /dev/tpm*)"
                return UnavailableError(f"there is no {conf}", hint=hint, native=native)
            except PermissionError:
                hint = f"ls -l {conf}, then for example: usermod -aG tss USER"
                return UnavailableError(f"this user may not use {conf}", hint=hint, native=native)
            except OSError as cause:
                hint = "use /dev/tpmrm0, which many programs share"
                what = f"{conf} cannot be opened: {cause.strerror}"
                return UnavailableError(what, hint=hint, native=native)
        return UnavailableError(
            f"no TPM answers at {self.uri.tcti}",
            hint="is its service running, and is the path right?",
            native=native,
        )

    def _drop(self) -> None:
        # Also where the TPM answered: the library's context remembers a salted session that
        # was refused, and makes wrong HMACs from then on.
        esys, self._esys = self._esys, None
        if esys is not None:
            with contextlib.suppress(TSS2_Exception):
                esys.close()

    def close(self) -> None:
        """Ends the connection; idempotent. In a fork it only lets go."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            self._drop()

    # What the TPM says of itself

    def properties(self) -> dict[int, int]:
        """Fixed and variable properties (TPM2_PT) by number."""

        def read(esys: Any) -> dict[int, int]:
            found: dict[int, int] = {}
            for first in (TPM2_PT.FIXED, TPM2_PT.VAR):
                _, answer = esys.get_capability(TPM2_CAP.TPM_PROPERTIES, first, 64)
                data = answer.data  # bound to a name: the binding reads freed memory otherwise
                listed = data.tpmProperties
                for i in range(listed.count):
                    entry = listed[i]
                    found[int(entry.property)] = int(entry.value)
            return found

        return self.run("asking for its properties", read)

    def loaded(self) -> tuple[int, int]:
        """How many objects and sessions are loaded, whoever did it."""

        def count(esys: Any, first: int) -> int:
            _, answer = esys.get_capability(TPM2_CAP.HANDLES, first, 64)
            data = answer.data
            handles = data.handles
            return int(handles.count)

        return self.run(
            "counting handles",
            lambda esys: (count(esys, _TRANSIENT), count(esys, _LOADED_SESSIONS)),
        )


def maker(properties: dict[int, int]) -> str:
    """Manufacturer and vendor string, as text."""
    # TPM2_PT_MANUFACTURER, and TPM2_PT_VENDOR_STRING_1 to _4, which follow it.
    first = int(TPM2_PT.MANUFACTURER)
    raw = [properties.get(first + i, 0).to_bytes(4, "big") for i in range(5)]
    vendor = b"".join(raw[1:])
    texts = (part.decode("ascii", "replace").strip("\0 ") for part in (raw[0], vendor))
    return " ".join(text for text in texts if text)


@contextlib.contextmanager
def overwritten(esys: Any) -> Iterator[None]:
    """Around a command that brings a secret: its answer stays in the library's buffer, and is
    replaced by a longer one that says nothing secret."""
    try:
        yield
    finally:
        with contextlib.suppress(TSS2_Exception):
            esys.pcr_read("sha256:0,1,2,3,4,5,6,7")


@contextlib.contextmanager
def flushed(esys: Any, handle: Any) -> Iterator[Any]:
    """A transient object or session, gone afterwards, come what may."""
    try:
        yield handle
    finally:
        with contextlib.suppress(TSS2_Exception):  # a TPM that died has lost it anyway
            esys.flush_context(handle)


@contextlib.contextmanager
def session(
    esys: Any,
    kind: Any = TPM2_SE.HMAC,
    salt_key: Any = ESYS_TR.NONE,
    attributes: Any = TPMA_SESSION.ENCRYPT | TPMA_SESSION.DECRYPT,
) -> Iterator[Any]:
    """A session of which nobody on the bus can make use.

    With `salt_key`, its secret comes from that key of the TPM (Part 1, section 19.6.8).
    Without one it must authorise an object whose authorisation is strong: that enters the
    HMAC and the encryption of parameters alike (sections 19.6.5 and 21.2).
    """
    aes = TPMT_SYM_DEF(
        algorithm=TPM2_ALG.AES,
        keyBits=TPMU_SYM_KEY_BITS(aes=128),
        mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB),
    )
    handle = esys.start_auth_session(salt_key, ESYS_TR.NONE, kind, aes, TPM2_ALG.SHA256)
    with flushed(esys, handle):
        esys.trsess_set_attributes(handle, attributes | TPMA_SESSION.CONTINUESESSION, 0xFF)
        yield handle
