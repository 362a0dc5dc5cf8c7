"""The tree of a log that is being written: it grows with the log, and is signed.

Everything here runs in the log's writer thread, behind the log's own writing: tiles when
the records that they cover are on disk, a checkpoint when its tiles are. A tree goes on
where the last checkpoint ended and never anywhere else. If the log is not what that
checkpoint says, no further one is signed: it would be a second history.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ..errors import AuthenticationError, StateError
from .checkpoint import Checkpoint, NoteKey, Signer, make_origin
from .find import find_leaves
from .head import Head
from .journal import CheckpointWriter, last_checkpoint, read_checkpoints
from .merkle import HASH_SIZE, TILE_WIDTH, Frontier, Tile
from .segments import closed_files, first_seq_of
from .tiles import Tiles, TileWriter, tiles_path

MAX_UNSIGNED: Final = 1 << 16
"""Records after which a checkpoint is due, however little time has passed."""

_MAX_FULL: Final = 4096  # tiles that wait for the disk


class Evidence:
    """The tree of the log at `path`, whose last record `head` names.

    `known` are keys, besides the signer's, that may have signed the last checkpoint.
    Raises `StateError` where the log does not continue what that one says, or where hashes
    are lost, `OSError` where the disk fails.
    """

    def __init__(self, path: Path, head: Head, signer: Signer, known: Sequence[NoteKey]) -> None:
        self._path = path
        self.signer = signer
        self.origin = make_origin(signer.key.device, head.log)
        self.last = self._find_last(head, (signer.key, *known))
        self._tiles = TileWriter(path)
        self._full: list[Tile] = []
        self._frontier = self._restore(head)
        self._checkpoints = CheckpointWriter(path)
        self._pruned = self._first_tile()

    @property
    def unsigned(self) -> int:
        """Records since the last checkpoint."""
        return self._frontier.size - (self.last.size if self.last else 0)

    def extend(self, leaves: bytes) -> None:
        """Adds the leaf hashes of records that will be on disk when `write` is called."""
        self._full += self._frontier.extend(leaves)
        if len(self._full) > _MAX_FULL:
            self._full.clear()  # the disk takes none; whoever needs them makes them again

    def write(self) -> None:
        """Writes the tiles that are full. `OSError`; call again to go on."""
        while self._full:
            self._tiles.write(*self._full[0])
            del self._full[0]

    def sign(self) -> Checkpoint:
        """Signs and stores a checkpoint of the tree as it is. `OSError`."""
        frontier = self._frontier
        self.write()
        for level, edge in enumerate(frontier.edges):
            if edge:
                index = frontier.size // TILE_WIDTH ** (level + 1)
                self._tiles.write(level, index, bytes(edge))
        self._tiles.sync()
        checkpoint = Checkpoint(self.origin, frontier.size, frontier.root()).signed(self.signer)
        self._checkpoints.append(checkpoint)
        self.last = checkpoint
        self._publish()
        self._prune()
        return checkpoint

    def add_cosigned(self, checkpoint: Checkpoint) -> None:
        """Stores a checkpoint of this log that others have signed, too. `OSError`."""
        self._checkpoints.append(checkpoint)
        if self.last and self.last.text == checkpoint.text:
            self.last = self.last.merged(checkpoint.lines)
            self._publish()

    def close(self) -> None:
        """Closes the files; may be called again."""
        self._checkpoints.close()

    def _publish(self) -> None:
        """Lets those who read tiles have the newest checkpoint; nothing depends on it."""
        assert self.last is not None
        path = tiles_path(self._path) / "checkpoint"
        fresh = path.with_name("checkpoint.new")
        fresh.write_bytes(self.last.encode())
        fresh.chmod(0o600)
        fresh.replace(path)

    def _prune(self) -> None:
        """Removes hashes of records that expired."""
        first = self._first_tile()
        if first > self._pruned:
            keep = {each.size // TILE_WIDTH for each in read_checkpoints(self._path)}
            self._tiles.remove(self._pruned, first, keep)
            self._pruned = first

    def _first_tile(self) -> int:
        """The tile of the oldest record that is still there."""
        oldest = closed_files(self._path)[:1]
        return max(0, first_seq_of(oldest[0]) - 1) // TILE_WIDTH if oldest else 0

    def _find_last(self, head: Head, keys: Sequence[NoteKey]) -> Checkpoint | None:
        last = last_checkpoint(self._path)
        if last is None:
            return None
        try:
            signer = last.signed_by(keys) if last.origin == self.origin else None
        except AuthenticationError:
            signer = None
        if signer is None:
            raise _contradiction("the last checkpoint is not one of this device and log")
        if last.size > head.seq:
            raise _contradiction(f"{last.size} records were signed, the log has {head.seq}")
        return last

    def _restore(self, head: Head) -> Frontier:
        """The tree's right edge: at the last checkpoint from tiles, from there by the log."""
        frontier, previous = Frontier(), b""
        if self.last is not None:
            size = self.last.size
            tiles = Tiles(self._path, size)
            frontier, previous = tiles.frontier(size), tiles.root(size - 1, size)
            if frontier.root() != self.last.root:  # torn tiles, or changed ones
                frontier = Frontier()
                previous = self._grow(frontier, size, b"")
                if frontier.root() != self.last.root:
                    raise _contradiction("the log is not what the last checkpoint says")
        self._grow(frontier, head.seq, previous)
        return frontier

    def _grow(self, frontier: Frontier, size: int, previous: bytes) -> bytes:
        """Adds what the log has behind the record with this hash, up to this size; the last
        hash."""
        while frontier.size < size:
            end = min(size, frontier.size + MAX_UNSIGNED)
            leaves = find_leaves(self._path, frontier.size, end, previous)
            if leaves is None:
                raise _contradiction(
                    f"one of the records {frontier.size + 1} to {end} is missing or was changed"
                )
            for tile in frontier.extend(leaves):
                self._tiles.write(*tile)
            previous = leaves[-HASH_SIZE:]
        return previous


def _contradiction(message: str) -> StateError:
    return StateError(
        f"no checkpoint can be signed: {message}",
        hint="pqc-iiot audit verify shows where; keep the files as they are",
    )
