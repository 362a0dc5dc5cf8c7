"""Do a log's checkpoints and tiles say what its records say? The tree's part of `verify`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from ..errors import AuthenticationError, StateError
from .checkpoint import Checkpoint, NoteKey
from .journal import read_checkpoints
from .merkle import HASH_SIZE, TILE_WIDTH, Frontier, consistency_proof, verify_consistency
from .tiles import Tiles, tile_file, tiles_path

Report: TypeAlias = Callable[[Literal["checkpoint", "tile"], str, int], None]
"""Takes a contradiction: its kind, what it is, and a sequence number or 0."""

_OWN: Final = "the checkpoint"
_GIVEN: Final = "the given checkpoint"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is proven by checkpoints.

    `checkpoints` hold, the newest of them over `signed_seq` records. Cosignatures of
    `witnesses` (device names) cover `witnessed_seq` records. `root` is that of the tree over
    all records (64 hex digits), or "" where hashes are lost.
    """

    checkpoints: int = 0
    signed_seq: int = 0
    witnessed_seq: int = 0
    witnesses: tuple[str, ...] = ()
    root: str = ""


@dataclass(frozen=True, slots=True)
class _Claim:
    what: str
    checkpoint: Checkpoint
    cosigned: tuple[str, ...]


class Covered:
    """Takes a log's leaf hashes in order, and compares the tree with everything that was
    signed about it. With `keys`, signatures are verified, too."""

    def __init__(
        self, log: Path, keys: Sequence[NoteKey], given: Sequence[Checkpoint], report: Report
    ) -> None:
        self._log, self._keys, self._report = log, keys, report
        self._frontier: Frontier | None = Frontier()
        self._first = 1
        self._claims: dict[int, list[_Claim]] = {}
        self._newest: Checkpoint | None = None
        self._held: set[int] = set()
        self._witnesses: dict[str, int] = {}
        try:
            for checkpoint in read_checkpoints(log):
                self._claim(_OWN, checkpoint)
        except StateError as error:
            report("checkpoint", str(error), 0)
        for checkpoint in given:
            self._claim(_GIVEN, checkpoint)
        if self._newest and keys:
            self._require_signature(_OWN, self._newest)
        self._sizes = sorted(self._claims, reverse=True)  # those that are still to come

    def start(self, first_seq: int) -> None:
        """The log begins with this record."""
        self._first = first_seq
        if first_seq == 1:
            return
        while self._sizes and self._sizes[-1] < first_seq - 1:
            self._sizes.pop()
        try:
            size = self._newest.size if self._newest else 0
            self._frontier = Tiles(self._log, size).frontier(first_seq - 1)
        except StateError:
            self._frontier = None

    def add(self, first_seq: int, leaves: bytes) -> None:
        """Takes the hashes of the records from this one on."""
        frontier = self._frontier
        if frontier is None or first_seq <= frontier.size:
            return
        if first_seq > frontier.size + 1:
            self._fill(frontier, first_seq - 1)
        position = 0
        while position < len(leaves) and self._frontier:
            self._check_root(frontier)
            end = len(leaves)
            if self._sizes:
                end = min(end, position + (self._sizes[-1] - frontier.size) * HASH_SIZE)
            for tile in frontier.extend(leaves[position:end]):
                self._check_tile(*tile)
            position = end

    def end(self, log: str, last_seq: int) -> Coverage:
        """The log with this id ended with this record."""
        if self._frontier is not None:
            self._check_root(self._frontier)
        elif any(size <= last_seq for size in self._sizes):
            self._report("tile", "hashes are lost: not every checkpoint can be checked", 0)
        for size, claims in self._claims.items():
            for claim in claims:
                if log and not claim.checkpoint.origin.endswith(f"/{log}"):
                    self._report("checkpoint", f"{claim.what} over {size} is of another log", 0)
                elif size > last_seq:
                    message = f"{claim.what} is over {size} records, the log ends with {last_seq}"
                    self._report("checkpoint", message, size)
                elif size < self._first - 1 and claim.what is _GIVEN:
                    self._check_expired(claim.checkpoint)
        return Coverage(
            checkpoints=len(self._held),
            signed_seq=max(self._held, default=0),
            witnessed_seq=max(self._witnesses.values(), default=0),
            witnesses=tuple(sorted(self._witnesses)),
            root=self._frontier.root().hex() if self._frontier else "",
        )

    def _claim(self, what: str, checkpoint: Checkpoint) -> None:
        cosigned: tuple[str, ...] = ()
        try:
            checkpoint.signed_by(self._keys)
            cosigned = tuple(each.key.device for each in checkpoint.cosigned_by(self._keys))
        except AuthenticationError:
            message = f"a signature of {what} over {checkpoint.size} does not verify"
            self._report("checkpoint", message, checkpoint.size)
        if what is _GIVEN and self._keys:
            self._require_signature(what, checkpoint)
        if what is _OWN and (self._newest is None or checkpoint.size > self._newest.size):
            self._newest = checkpoint
        claim = _Claim(what, replace(checkpoint, lines=()), cosigned)
        self._claims.setdefault(checkpoint.size, []).append(claim)

    def _require_signature(self, what: str, checkpoint: Checkpoint) -> None:
        try:
            if checkpoint.signed_by(self._keys) is None:
                message = f"{what} over {checkpoint.size} is signed by no known key"
                self._report("checkpoint", message, checkpoint.size)
        except AuthenticationError:
            pass  # said before

    def _check_root(self, frontier: Frontier) -> None:
        """Compares what was signed about the tree of this size."""
        while self._sizes and self._sizes[-1] <= frontier.size:
            size = self._sizes.pop()
            root = frontier.root()
            for claim in self._claims[size]:
                if size == frontier.size and claim.checkpoint.root == root:
                    self._hold(size, claim)
                else:
                    message = f"the first {size} records are not those of {claim.what}"
                    self._report("checkpoint", message, size)

    def _hold(self, size: int, claim: _Claim) -> None:
        self._held.add(size)
        for witness in claim.cosigned:
            self._witnesses[witness] = max(size, self._witnesses.get(witness, 0))

    def _fill(self, frontier: Frontier, size: int) -> None:
        """Takes from tiles the hashes of records that are not in the log any more."""
        newest = self._newest.size if self._newest else 0
        try:
            if size > newest:
                raise StateError("no tile has them")
            tiles = Tiles(self._log, newest)
            for index in range(frontier.size, size):
                self.add(index + 1, tiles.root(index, index + 1))
        except StateError:
            self._frontier = None

    def _check_tile(self, level: int, index: int, hashes: bytes) -> None:
        """A tile that is missing is made again; one that says something else is wrong."""
        if self._newest is None or (index + 1) * TILE_WIDTH ** (level + 1) > self._newest.size:
            return
        path = tile_file(tiles_path(self._log) / "tile", level, index, TILE_WIDTH)
        with contextlib.suppress(OSError):
            if path.read_bytes() != hashes:
                first = index * TILE_WIDTH ** (level + 1) + 1
                message = f"{path} does not have the hashes of the records from {first}"
                self._report("tile", message, first)

    def _check_expired(self, checkpoint: Checkpoint) -> None:
        """Compares with a checkpoint over records that are all removed by now."""
        newest = self._newest
        with contextlib.suppress(StateError):
            if newest and newest.size in self._held:
                root = Tiles(self._log, newest.size).root
                proof = consistency_proof(checkpoint.size, newest.size, root)
                sizes = checkpoint.size, newest.size
                if verify_consistency(*sizes, proof, checkpoint.root, newest.root):
                    return
        message = f"the log is not shown to continue {_GIVEN} over {checkpoint.size}"
        self._report("checkpoint", message, checkpoint.size)
