"""Proofs that need no log: that a record is in it, and that one state continues another.

A proof is a JSON object. Of a record (`prove`, `check`):

    {"v":1,"record":"<its line>","index":7,"size":20,"path":["<base64>",…],"checkpoint":"<note>"}

The line's leaf hash has this index in the tree of `size` leaves whose root the checkpoint
has. That one continues another (`prove_consistency`):

    {"v":1,"old":"<note>","new":"<note>","path":["<base64>",…]}
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import AuthenticationError, InvalidFrameError, InvalidInputError, StateError
from .checkpoint import Checkpoint, Cosigned, NoteKey
from .find import find_line
from .journal import last_checkpoint
from .merkle import (
    HASH_SIZE,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from .record import AuditRecord
from .tiles import Tiles

MAX_PROOF: Final = 1 << 20
"""Bytes of a proof at most."""

_MAX_PATH: Final = 2 * 63


@dataclass(frozen=True, slots=True)
class Proof:
    """That a record, by its line without the end, is in the tree of a checkpoint."""

    record: bytes
    index: int
    path: tuple[bytes, ...]
    checkpoint: Checkpoint

    @classmethod
    def parse(cls, data: bytes) -> Proof:
        """Reads a proof; `InvalidFrameError` for anything else."""
        match _load(data):
            case {"v": 1, "record": str(record), "index": int(index), "size": int(size), **rest}:
                checkpoint = _note(rest.get("checkpoint"))
                if checkpoint.size == size and type(index) is int and record.isascii():
                    return cls(record.encode(), index, _path(rest.get("path")), checkpoint)
        raise InvalidFrameError("these bytes are no proof of a record")

    def encode(self) -> bytes:
        """The JSON object, in one line."""
        return _dump(
            {
                "record": self.record.decode(),
                "index": self.index,
                "size": self.checkpoint.size,
                "path": [b64encode(part).decode() for part in self.path],
                "checkpoint": self.checkpoint.encode().decode(),
            }
        )


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """That the tree of checkpoint `new` begins with that of checkpoint `old`."""

    old: Checkpoint
    new: Checkpoint
    path: tuple[bytes, ...]

    @property
    def ok(self) -> bool:
        """Whether it does: of one log, and nothing that `old` covers was changed."""
        old, new = self.old, self.new
        return old.origin == new.origin and verify_consistency(
            old.size, new.size, self.path, old.root, new.root
        )

    def encode(self) -> bytes:
        """The JSON object, in one line."""
        return _dump(
            {
                "old": self.old.encode().decode(),
                "new": self.new.encode().decode(),
                "path": [b64encode(part).decode() for part in self.path],
            }
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """What a proof proves: the record, who signed for it (None without keys), and which
    witnesses did."""

    record: AuditRecord
    signer: NoteKey | None
    cosigned: tuple[Cosigned, ...]


def prove(log: Path, event: int | bytes, *, checkpoint: Checkpoint | None = None) -> Proof:
    """A proof of the record with this `seq` or leaf hash (32 bytes), against the newest
    checkpoint or the given one of this log.

    `InvalidInputError` where there is no such record or no checkpoint that covers it,
    `StateError` where log and tiles do not make a proof.
    """
    checkpoint = checkpoint or last_checkpoint(log)
    if checkpoint is None:
        raise InvalidInputError(
            "no checkpoint covers this log", hint="the device signs one whenever it is opened"
        )
    tiles = Tiles(log, checkpoint.size)
    index = tiles.index_of(event) if isinstance(event, bytes) else event - 1
    if index is None or not 0 <= index < checkpoint.size:
        raise InvalidInputError(
            f"the last checkpoint covers {checkpoint.size} records, and not this one",
            hint="the device signs another one within a minute, and when it ends",
        )
    line = find_line(log, index + 1)
    if line is None:
        raise StateError(
            f"record {index + 1} is not in the log any more",
            hint="put what was rotated away back beside the log",
        )
    path = tuple(inclusion_proof(index, checkpoint.size, tiles.root))
    proof = Proof(line, index, path, checkpoint)
    if not _includes(proof):
        raise StateError(
            f"record {index + 1} and its tiles are not what was signed",
            hint="pqc-iiot audit verify shows what was changed",
        )
    return proof


def check(proof: Proof, keys: Sequence[NoteKey] = ()) -> Checked:
    """Checks a proof without the log.

    With `keys` (of the device and of witnesses), one of them must have signed the
    checkpoint. `AuthenticationError` where anything does not hold.
    """
    record = AuditRecord.parse(proof.record)
    if record is None or record.seq != proof.index + 1 or not _includes(proof):
        raise AuthenticationError("the record is not in the tree of the checkpoint")
    signer = proof.checkpoint.signed_by(keys)
    if keys and signer is None:
        raise AuthenticationError("the checkpoint is signed by none of these keys")
    return Checked(record, signer, tuple(proof.checkpoint.cosigned_by(keys)))


def prove_consistency(log: Path, old: Checkpoint, new: Checkpoint) -> ConsistencyProof:
    """A proof that `new` continues `old`, from the tiles of their log; `ok` tells whether
    it does. `InvalidInputError` for checkpoints in the wrong order or of two logs."""
    if old.size > new.size or old.origin != new.origin:
        raise InvalidInputError(
            "these are no two checkpoints of one log, the older one first",
            hint=f"{old.origin} over {old.size} records, {new.origin} over {new.size}",
        )
    path = consistency_proof(old.size, new.size, Tiles(log, new.size).root)
    return ConsistencyProof(old, new, tuple(path))


def _includes(proof: Proof) -> bool:
    checkpoint = proof.checkpoint
    leaf = leaf_hash(proof.record)
    return verify_inclusion(leaf, proof.index, checkpoint.size, proof.path, checkpoint.root)


def _dump(members: dict[str, object]) -> bytes:
    return json.dumps({"v": 1, **members}, separators=(",", ":")).encode() + b"\n"


def _load(data: bytes) -> object:
    try:
        if len(data) > MAX_PROOF:
            raise ValueError
        document: object = json.loads(data)
    except (ValueError, RecursionError) as cause:
        raise InvalidFrameError("these bytes are no proof") from cause
    return document


def _note(text: object) -> Checkpoint:
    try:
        return Checkpoint.parse(text.encode() if isinstance(text, str) else b"")
    except UnicodeEncodeError as cause:
        raise InvalidFrameError("these bytes are no checkpoint") from cause


def _path(parts: object) -> tuple[bytes, ...]:
    try:
        if not isinstance(parts, list) or len(parts) > _MAX_PATH:
            raise ValueError
        path = tuple(b64decode(part, validate=True) for part in parts)
    except (ValueError, TypeError) as cause:
        raise InvalidFrameError("the proof's path is none") from cause
    if any(len(part) != HASH_SIZE for part in path):
        raise InvalidFrameError("the proof's path is none")
    return path
