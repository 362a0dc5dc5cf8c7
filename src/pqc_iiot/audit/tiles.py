"""The tree's hashes on disk, as C2SP lays them out (c2sp.org/tlog-tiles).

Beside `audit.log` stands the folder `audit.tiles`: `tile/<L>/<N>` has 256 hashes of level L
(8,192 bytes), `tile/<L>/<N>.p/<W>` the W hashes that such a tile had when a checkpoint was
signed, and `checkpoint` is a copy of the newest one. So the folder can be served as it is.

Tiles say nothing that the log does not say: one that is missing or cut short is made again
from the log, and a proof made from a wrong one does not verify. What a checkpoint covers
is on disk before the checkpoint is signed. Hashes of records that expired go with them,
but for the tiles in which a checkpoint ends: proofs of consistency need no others.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Container
from pathlib import Path
from typing import Final

from .._core import merkle_root
from ..errors import StateError
from .find import find_leaves
from .merkle import HASH_SIZE, TILE_WIDTH, Frontier

_CACHE: Final = 64
_MANY: Final = 32  # names beyond which one call for the whole file system is quicker


def tiles_path(log: Path) -> Path:
    """The folder of the tiles that belong to a log file."""
    return log.with_suffix(".tiles")


class Tiles:
    """Reads the tree of a log at a size for which a checkpoint was signed."""

    def __init__(self, log: Path, size: int) -> None:
        self._log, self._folder = log, tiles_path(log) / "tile"
        self._size = size
        self._cache: dict[tuple[int, int], bytes] = {}

    def root(self, begin: int, end: int) -> bytes:
        """The root over the leaves from `begin` to before `end`.

        As everywhere in proofs, `begin` is a multiple of a power of two that is not
        smaller than their number. `StateError` where neither tiles nor log have them.
        """
        above = b""
        level = 0
        while end - begin >= TILE_WIDTH:
            index, width = divmod(end, TILE_WIDTH)
            if width or above:
                above = merkle_root(self._hashes(level, index, 0, width) + above)
            begin, end, level = begin // TILE_WIDTH, index, level + 1
        index, first = divmod(begin, TILE_WIDTH)
        return merkle_root(self._hashes(level, index, first, first + end - begin) + above)

    def frontier(self, size: int) -> Frontier:
        """The right edge of the tree of `size` leaves, at most this tree's."""
        edges = []
        rest, level = size, 0
        while rest:
            rest, width = divmod(rest, TILE_WIDTH)
            edges.append(self._hashes(level, rest, 0, width))
            level += 1
        return Frontier(size, edges)

    def index_of(self, leaf: bytes) -> int | None:
        """The index of the leaf with this hash, by looking through all of them."""
        for tile in range(-(-self._size // TILE_WIDTH)):
            hashes = self._tile(0, tile)
            at = hashes.find(leaf)
            while at >= 0 and at % HASH_SIZE:
                at = hashes.find(leaf, at + 1)
            if at >= 0:
                return tile * TILE_WIDTH + at // HASH_SIZE
        return None

    def _hashes(self, level: int, index: int, first: int, end: int) -> bytes:
        if first == end:
            return b""
        return self._tile(level, index)[first * HASH_SIZE : end * HASH_SIZE]

    def _tile(self, level: int, index: int) -> bytes:
        """A tile, as wide as this tree has it."""
        tile = self._cache.get((level, index))
        if tile is None:
            width = min(TILE_WIDTH, self._size // TILE_WIDTH**level - index * TILE_WIDTH)
            if width <= 0:
                raise StateError(f"the tree of {self._size} records has no such part")
            tile = self._read(level, index, width) or self._make(level, index, width)
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            self._cache[level, index] = tile
        return tile

    def _read(self, level: int, index: int, width: int) -> bytes | None:
        size = width * HASH_SIZE
        for name_width in {width, TILE_WIDTH}:
            with contextlib.suppress(OSError):
                data = tile_file(self._folder, level, index, name_width).read_bytes()
                if len(data) == name_width * HASH_SIZE:
                    return data[:size]
        return None

    def _make(self, level: int, index: int, width: int) -> bytes:
        first = index * TILE_WIDTH
        if level:
            below = (self._tile(level - 1, each) for each in range(first, first + width))
            return b"".join(map(merkle_root, below))
        hashes = find_leaves(self._log, first, first + width)
        if hashes is None:
            raise StateError(
                f"hashes of the records {first + 1} to {first + width} are lost",
                hint="put the log, or what was rotated away from it, back beside its tiles",
            )
        return hashes


class TileWriter:
    """Writes what becomes full at once, and makes it durable when a checkpoint needs it."""

    def __init__(self, log: Path) -> None:
        self._top = tiles_path(log)
        self._folder = self._top / "tile"
        self._unsynced: set[Path] = set()
        self._superfluous: list[Path] = []

    def write(self, level: int, index: int, hashes: bytes) -> None:
        """Writes one tile; a full one makes its partial ones superfluous. `OSError`."""
        width = len(hashes) // HASH_SIZE
        path = tile_file(self._folder, level, index, width)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._make_folder(path.parent)
            fd = os.open(path, flags, 0o600)
        with open(fd, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            file.write(hashes)
        self._unsynced |= {path, path.parent}
        if width == TILE_WIDTH:
            self._superfluous.append(tile_file(self._folder, level, index, 1).parent)

    def sync(self) -> None:
        """Makes durable what was written. `OSError`."""
        if len(self._unsynced) > _MANY:
            _sync_filesystem(self._top)
        else:
            for path in self._unsynced:
                _sync(path)
        self._unsynced.clear()
        for folder in self._superfluous:
            shutil.rmtree(folder, ignore_errors=True)
        self._superfluous.clear()

    def remove(self, begin: int, end: int, keep: Container[int]) -> None:
        """Removes full tiles of leaf hashes, but for those in `keep`, by index. `OSError`."""
        for index in range(begin, end):
            if index not in keep:
                tile_file(self._folder, 0, index, TILE_WIDTH).unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        if folder != self._top:
            self._make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)
            self._unsynced |= {folder, folder.parent}


def tile_file(folder: Path, level: int, index: int, width: int) -> Path:
    """Where a tile stands: indexes in groups of three digits, all but the last after an x."""
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    *above, last = (digits[i : i + 3] for i in range(0, len(digits), 3))
    path = folder.joinpath(str(level), *(f"x{group}" for group in above), last)
    return path if width == TILE_WIDTH else path.with_name(f"{last}.p") / str(width)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_filesystem(path: Path) -> None:
    """syncfs(2), which Python does not offer: one commit for all files."""
    import ctypes

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(fd)
