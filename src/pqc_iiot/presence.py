"""`node.presence`: whether the same keys are in use elsewhere.

A device that announces itself shows a signed record of its use of numbers: how often its
state was opened and closed (`epoch`), the upper edge of the numbers given out, and a random
id for each opening in which it has shown one. All of that only ever grows in one folder. So
a record that the device's own keys signed, and that the folder cannot have shown, comes from
a copy of it that is alive, or says that this folder is itself an older copy.

What a folder has shown last is in the file `presence`, durable before anybody sees it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import cose
from ._core import SigPublicKey
from .bundle import Bundle
from .errors import (
    AuthenticationError,
    ClonedIdentityError,
    InvalidFrameError,
    PqcIiotError,
    StateError,
    StateTamperedError,
)
from .identity import OwnKeys
from .state import State
from .store import META, Row, Store

PRESENCE_FILE = "presence"
MAX_PRESENCE_SIZE = 8192
"""Bytes; the largest real one (suite 5) has about 5.6 kB."""
KEPT = 32
"""Openings that a record names; of those before, only the epoch is still compared."""
INSTANCE_SIZE = 16

ONE_OF_BOTH = (
    "stop one of both, and make new keys in the other: pqc-iiot id rotate, then pqc-iiot id retire"
)
"""What to do."""

_DOMAIN = b"pqc-iiot presence v1"
_ROW = b"cloned"
_MAX_TOLD = 64
_END = 1 << 64


@dataclass(frozen=True, slots=True)
class PresenceRecord:
    """A verified record. `openings` are those in which one was shown under these keys, each
    with the epoch at which it began and its random id (16 bytes); the last is its own."""

    epoch: int
    edge: int
    openings: tuple[tuple[int, bytes], ...]
    encoded: bytes

    @property
    def instance(self) -> bytes:
        """The id of the opening in which it was made."""
        return self.openings[-1][1]

    def covers(self, other: PresenceRecord) -> bool:
        """Whether a folder that has shown this one last may have shown `other`, too."""
        if other.epoch > self.epoch or other.edge > self.edge:
            return False
        if len(self.openings) == KEPT and other.epoch < self.openings[0][0]:
            return True  # it may be one that is no longer named
        return any(instance == other.instance for _, instance in self.openings)


def parse_presence(data: bytes, own: Bundle) -> PresenceRecord:
    """Decodes and verifies a record. `InvalidFrameError` for anything that is none of these
    keys, `AuthenticationError` where they have not signed it."""
    if len(data) > MAX_PRESENCE_SIZE or not data.startswith(cose.TAG_SIGN1):
        raise InvalidFrameError("these bytes are no record of presence")
    message = data[len(cose.TAG_SIGN1) :]
    match cose.loads(message, MAX_PRESENCE_SIZE, "a record of presence"):
        case [bytes(protected), Mapping() as unprotected, bytes(payload), bytes(signature)] if (
            protected == _protected(own) and not unprotected
        ):
            pass
        case _:
            raise InvalidFrameError("this is no record of presence under these keys")
    match cose.loads(payload, MAX_PRESENCE_SIZE, "a record's content"):
        case [own.fingerprint, int(epoch), int(edge), tuple(openings)] if (
            0 <= epoch < _END and 0 <= edge < _END and 1 <= len(openings) <= KEPT
        ):
            parsed = tuple(map(_opening, openings))
        case _:
            raise InvalidFrameError("a record of presence has another shape")
    key = SigPublicKey(own.suite.sig.id, own.sig_public_key)
    if not key.verify(_to_be_signed(protected, payload), signature):
        raise AuthenticationError("a record of presence does not verify")
    return PresenceRecord(epoch, edge, parsed, data)


def last_shown(folder: Path, own: Bundle) -> PresenceRecord | None:
    """The record that a folder has shown last under the keys of its bundle `own`, without
    them and also while a process owns it. None where it has shown none; `StateError` where
    it cannot be read, `StateTamperedError` where it is damaged."""
    try:
        with (folder / PRESENCE_FILE).open("rb") as file:
            data = file.read(MAX_PRESENCE_SIZE + 1)
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise StateError(f"{folder / PRESENCE_FILE} cannot be read: {cause.strerror}") from cause
    shown_under, record = data[:32], data[32:]
    if shown_under != own.fingerprint:  # keys before these
        return None
    try:
        return parse_presence(record, own)
    except PqcIiotError as cause:
        raise StateTamperedError(
            f"{folder / PRESENCE_FILE} is damaged",
            hint="make new keys (pqc-iiot id rotate): what these have shown is unknown",
        ) from cause


def is_elsewhere(folder: Path, record: PresenceRecord, own: Bundle) -> bool:
    """Whether a verified record of the keys of `own` comes from another folder than this one,
    or a later state of it. Errors as `last_shown`."""
    shown = last_shown(folder, own)
    return shown is None or not shown.covers(record)


def is_cloned(store: Store, own: Bundle) -> bool:
    """Whether the current keys were seen in use elsewhere."""
    row = store.get(META, _ROW)
    return row is not None and row.value.startswith(own.fingerprint)


class Presence:
    """Shows this device's use of its keys, and looks at what is shown. Thread-safe."""

    def __init__(
        self,
        state: Callable[[], State],
        lock: threading.RLock,
        refused: Callable[[PqcIiotError, Mapping[str, str | int]], None],
    ) -> None:
        self._state, self._lock, self._refused = state, lock, refused
        self._instance = os.urandom(INSTANCE_SIZE)
        self._told: set[bytes] = set()

    def record(self) -> bytes:
        """The record to show now. Signed anew only after keys or numbers have moved, and
        durable when it returns; `StateError` where it cannot be."""
        with self._lock:
            state = self._state()
            own, mark = state.identity.current, state.freshness.mark
            before = last_shown(state.folder.path, own.bundle)
            openings = before.openings if before else ()
            if before is None or before.instance != self._instance:
                openings = (*openings, (mark.epoch, self._instance))[-KEPT:]
            elif (before.epoch, before.edge) == (mark.epoch, mark.edge):
                return before.encoded
            encoded = _sign(own, mark.epoch, mark.edge, openings)
            state.folder.write(PRESENCE_FILE, own.bundle.fingerprint + encoded)
            return encoded

    def take(self, data: bytes, *, transport: str = "") -> None:
        """Looks at a record that is shown under this device's name.

        `ClonedIdentityError`, after an event and with `Status.cloned` from then on, where
        the keys are in use elsewhere: once for each opening there. Errors as
        `parse_presence`, without an event, for what says nothing about these keys.
        """
        with self._lock:
            state = self._state()
            own = state.identity.current.bundle
            record = parse_presence(data, own)
            if not is_elsewhere(state.folder.path, record, own):
                return
            value = own.fingerprint + record.instance
            row = state.store.get(META, _ROW)
            if (row and row.value == value) or value in self._told or len(self._told) == _MAX_TOLD:
                return
            self._told.add(value)
            error = ClonedIdentityError(
                f"the keys of {own.name} are in use elsewhere, with numbers reserved up to"
                f" {record.edge}",
                hint=f"this folder was copied, or is itself an older copy: {ONE_OF_BOTH}",
                peer=own.fingerprint.hex(),
            )
            known: dict[str, str | int] = {"instance": record.instance.hex(), "edge": record.edge}
            self._refused(error, known | ({"transport": transport} if transport else {}))
            with state.store.transaction():
                state.store.put(META, Row(_ROW, value))
            raise error


def _sign(own: OwnKeys, epoch: int, edge: int, openings: tuple[tuple[int, bytes], ...]) -> bytes:
    protected = _protected(own.bundle)
    payload = cose.dumps([own.bundle.fingerprint, epoch, edge, openings])
    signature = own.keys.sign(_to_be_signed(protected, payload))
    return cose.TAG_SIGN1 + cose.dumps([protected, {}, payload, signature])


def _protected(own: Bundle) -> bytes:
    return cose.dumps({cose.ALG: own.suite.sig.id, cose.KID: own.kid})


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """Sig_structure of RFC 9052 section 4.4, for a COSE_Sign1."""
    return cose.dumps(["Signature1", protected, _DOMAIN, payload])


def _opening(entry: object) -> tuple[int, bytes]:
    match entry:
        case [int(epoch), bytes(instance)] if 0 <= epoch < _END and len(instance) == INSTANCE_SIZE:
            return epoch, instance
    raise InvalidFrameError("a record of presence has another shape")
