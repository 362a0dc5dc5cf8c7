"""A counter in the TPM's own memory, which nobody can set back (Part 1, 37.2.4).

One that is removed and defined again begins above every value that any counter of this TPM
ever had: whoever removes it only makes the stored state look old.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, TypeVar

from tpm2_pytss import TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_NT, TPMA_NV
from tpm2_pytss.types import TPM2B_DIGEST, TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

from ..errors import CounterRollbackError, UnavailableError
from .base import Counter
from .tpm_device import Device, session
from .tpm_errors import base_code
from .tpm_objects import Storage
from .tpm_secrets import Auth

T = TypeVar("T")

_FIRST, _COUNT = 0x01800000, 0x00400000
"""The range that TCG leaves to the owner (Registry of Reserved TPM 2.0 Handles, 2.2)."""
_WRITTEN = int(TPMA_NV.WRITTEN)
_ABSENT = 0x08B  # TPM_RC_HANDLE
_ATTRIBUTES = (
    TPMA_NV.AUTHREAD
    | TPMA_NV.AUTHWRITE
    | TPMA_NV.NO_DA
    | (int(TPM2_NT.COUNTER) << int(TPMA_NV.TPM2_NT_SHIFT))
)


def new_place() -> tuple[int, bytes]:
    """An index in the owner's range, and what makes its Name one of a kind: a policy that
    nothing satisfies."""
    return _FIRST + secrets.randbelow(_COUNT), secrets.token_bytes(32)


def remove_counter(device: Device, storage: Storage, place: tuple[int, bytes]) -> None:
    """Removes the counter at a place, if it is there; nothing else that is."""
    index, mark = place

    def remove(esys: Any) -> None:
        try:
            handle = esys.tr_from_tpmpublic(index)
        except TSS2_Exception as cause:
            if base_code(int(cause.rc)) != _ABSENT:
                raise
            return
        public, _ = esys.nv_read_public(handle)
        inner = public.nvPublic
        if bytes(inner.authPolicy) != mark:
            esys.tr_close(handle)
            return
        with storage.owner(esys, "remove its counter"), session(esys, attributes=0) as auth:
            esys.nv_undefine_space(handle, session1=auth)

    device.run("removing the counter", remove)


class TpmCounter(Counter):
    """The counter at one NV index. It is defined where it is not there."""

    rollback_protected = True

    def __init__(
        self, device: Device, storage: Storage, auth: Auth, place: tuple[int, bytes]
    ) -> None:
        self._device, self._storage, self._auth = device, storage, auth
        self.index, self._mark = place
        self._name = b""
        self._last: int | None = None
        device.run("preparing the counter", self._prepare)

    @property
    def name(self) -> bytes:
        """Index and Name: 38 bytes."""
        return self.index.to_bytes(4, "big") + self._name

    def value(self) -> int:
        """The number now."""
        self._last = self._run("reading the counter", self._read)
        return self._last

    def increment(self) -> int:
        """Adds one. Where the connection is lost on the way, the counter itself says
        whether it had counted, so that it is never counted twice."""
        before = self._last if self._last is not None else self.value()
        try:
            self._run("counting", self._add, again=False)
        except UnavailableError:
            if self.value() == before:
                self._run("counting", self._add, again=False)
        return self.value()

    def _run(self, doing: str, operation: Callable[[Any, Any, Any], T], *, again: bool = True) -> T:
        def use(esys: Any) -> T:
            handle = self._handle(esys)
            try:
                with session(esys) as auth:
                    return operation(esys, handle, auth)
            finally:
                esys.tr_close(handle)

        return self._device.run(doing, use, again=again)

    @staticmethod
    def _read(esys: Any, handle: Any, auth: Any) -> int:
        return int.from_bytes(bytes(esys.nv_read(handle, 8, 0, handle, session1=auth)), "big")

    @staticmethod
    def _add(esys: Any, handle: Any, auth: Any) -> None:
        # Nothing after it in the same operation, which may be run again as a whole.
        esys.nv_increment(handle, handle, session1=auth)

    def _handle(self, esys: Any) -> Any:
        handle = esys.tr_from_tpmpublic(self.index)
        try:
            name = esys.tr_get_name(handle)
            if self._name and bytes(name) != self._name:
                raise CounterRollbackError(
                    "another counter is where this device's was",
                    hint="somebody with the TPM owner's rights replaced it; find out who, then"
                    " make new keys and announce them: pqc-iiot recover",
                )
            esys.tr_set_auth(handle, self._auth.native)
        except BaseException:
            esys.tr_close(handle)
            raise
        return handle

    def _public(self) -> Any:
        return TPM2B_NV_PUBLIC(
            TPMS_NV_PUBLIC(
                nvIndex=self.index,
                nameAlg=TPM2_ALG.SHA256,
                attributes=_ATTRIBUTES,
                authPolicy=TPM2B_DIGEST(self._mark),
                dataSize=8,
            )
        )

    def _prepare(self, esys: Any) -> None:
        """Defines it where it is not there, and gives it its first value."""
        try:
            handle = esys.tr_from_tpmpublic(self.index)
        except TSS2_Exception as cause:
            if base_code(int(cause.rc)) != _ABSENT:
                raise
            handle = self._define(esys)
        try:
            public, _ = esys.nv_read_public(handle)
            inner = public.nvPublic
            written = int(inner.attributes) & _WRITTEN
            mine = self._public()
            area = mine.nvPublic
            if (
                int(inner.attributes) & ~_WRITTEN != int(area.attributes)
                or bytes(inner.authPolicy) != self._mark
            ):
                raise CounterRollbackError(
                    "something else is where this device's counter was",
                    hint="see tpm2_nvreadpublic; then make new keys: pqc-iiot recover",
                )
            esys.tr_set_auth(handle, self._auth.native)
            if not written:
                with session(esys) as auth:
                    esys.nv_increment(handle, handle, session1=auth)
        finally:
            esys.tr_close(handle)
        handle = esys.tr_from_tpmpublic(self.index)  # being written is part of the Name
        try:
            name = esys.tr_get_name(handle)
            self._name = bytes(name)
        finally:
            esys.tr_close(handle)

    def _define(self, esys: Any) -> Any:
        with (
            self._storage.key(esys) as parent,
            session(esys, salt_key=parent) as encrypted,
            self._storage.owner(esys, "define a counter"),
        ):
            return esys.nv_define_space(
                self._auth.native, self._public(), ESYS_TR.OWNER, session1=encrypted
            )
