"""When a log's tree is signed: some time after a record, after many, on demand, at the end.

The notary runs in the log's writer thread. Whatever it cannot do leaves the log alone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..errors import PqcIiotError, StateError
from .catalogue import Value
from .checkpoint import Checkpoint, NoteKey, Signer
from .evidence import MAX_UNSIGNED, Evidence
from .file import Entry, LogFile, make_entry

SIGN_AFTER: Final = 60.0
"""Seconds after which a record is covered by a checkpoint."""

_RETRY: Final = 5.0
_logger = logging.getLogger("pqc_iiot.audit")


class Notary:
    """Owns the evidence of one log. `due` is when it has something to do, on the monotonic
    clock; `signer` and `cosigned` may be set by any thread before it is woken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._evidence: Evidence | None = None
        self._failing = False
        self.due = math.inf
        self.signer: tuple[Signer, Sequence[NoteKey]] | None = None
        self.cosigned: list[Checkpoint] = []

    @property
    def last(self) -> Checkpoint | None:
        """The newest checkpoint; None if there is none, or no new one can be signed."""
        return self._evidence.last if self._evidence and not self._failing else None

    def note(self, batch: Sequence[Entry]) -> None:
        """Records were written."""
        if self._evidence is None:
            return
        # A checkpoint's own record calls for none, or there would be no end to it.
        if any(event.name != "checkpoint_signed" for _, event, _, _ in batch):
            self.due = min(self.due, time.monotonic() + SIGN_AFTER)
        if self._evidence.unsigned >= MAX_UNSIGNED:
            self.due = 0.0

    def settle(self, file: LogFile, *, closing: bool, asked: bool) -> list[Entry]:
        """Does what is due, now that everything written is on disk. Returns what to record."""
        try:
            entries = self._settle(file, closing, asked)
        except (OSError, PqcIiotError) as error:
            self.due = time.monotonic() + _RETRY
            if not self._failing:
                self._failing = True
                _logger.error("audit log %s: no checkpoint: %s", self._path, error)
            return []
        self._failing = False
        return entries

    def close(self) -> None:
        """Lets go of the files."""
        if self._evidence is not None:
            self._evidence.close()

    def _settle(self, file: LogFile, closing: bool, asked: bool) -> list[Entry]:
        if self.signer is not None and (refused := self._take_signer(file)):
            return refused
        evidence = self._evidence
        if evidence is None:
            self.due = math.inf
            return []
        asked = asked or closing or time.monotonic() >= self.due
        if asked and evidence.unsigned:
            file.write_head()
        if file.durable == file.end:
            evidence.write()
        while self.cosigned:
            evidence.add_cosigned(self.cosigned[0])
            del self.cosigned[0]
        if not asked:
            return []
        checkpoint = evidence.sign() if evidence.unsigned else None
        self.due = math.inf
        if checkpoint is None or closing:
            return []  # its record would be one that it does not cover
        detail: dict[str, Value] = {"size": checkpoint.size, "root": checkpoint.root.hex()}
        return [make_entry("checkpoint_signed", detail)]

    def _take_signer(self, file: LogFile) -> list[Entry]:
        """Takes up the tree, or another key for it. A log that contradicts its last
        checkpoint gets no further one until it is opened again."""
        assert self.signer is not None
        (signer, known), self.signer = self.signer, None
        if self._evidence is not None:
            self._evidence.signer = signer
            self.due = 0.0  # so that the last one is never of a key before the previous
        else:
            try:
                self._evidence = Evidence(self._path, file.end, signer, known)
            except StateError as error:
                _logger.error("audit log %s: %s", self._path, error)
                return [make_entry("checkpoint_refused", {"contradiction": str(error)})]
            file.tree = self._evidence
            last = self._evidence.last
            new = last is None or last.signed_by([signer.key]) is None
            self.due = 0.0 if new else time.monotonic() + SIGN_AFTER
        return []
