"""Merkle trees as in RFC 9162, section 2.1, with SHA-256: pure functions and one sum.

A proof is made by the section's own recursion from `SubtreeRoot`, a function that gives
the root over the leaves from `begin` to before `end`; where the hashes come from is not
known here. Hashes have 32 bytes; leaves count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

from .._core import merkle_root

HASH_SIZE: Final = 32
"""Bytes of a hash."""

TILE_WIDTH: Final = 256
"""Hashes in a full tile: a subtree of height 8."""

TILE_SIZE: Final = TILE_WIDTH * HASH_SIZE
"""Bytes of a full tile."""

SubtreeRoot: TypeAlias = Callable[[int, int], bytes]
Tile: TypeAlias = tuple[int, int, bytes]
"""Level, index in the level, and hashes, one after the other."""


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf (section 2.1.1)."""
    return sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over two subtrees (section 2.1.1)."""
    return sha256(b"\1" + left + right).digest()


def inclusion_proof(index: int, size: int, root: SubtreeRoot) -> list[bytes]:
    """PATH(index, D_size) of section 2.1.3.1; needs 0 <= index < size."""
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(root(middle, end))
            end = middle
        else:
            path.append(root(begin, middle))
            begin = middle
    return path[::-1]


def consistency_proof(old: int, new: int, root: SubtreeRoot) -> list[bytes]:
    """PROOF(old, D_new) of section 2.1.4.1; empty where `old` is 0 or `new`."""
    proof: list[bytes] = []
    begin, end, whole = 0, new, True
    while 0 < old < end:
        middle = begin + _split(end - begin)
        if old <= middle:
            proof.append(root(middle, end))
            end = middle
        else:
            proof.append(root(begin, middle))
            begin, whole = middle, False
    if not whole:
        proof.append(root(begin, end))
    return proof[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` shows that the leaf with this hash has this index in the tree of
    this size and root (section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, result = index, size - 1, leaf
    for part in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(part, result)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, part)
        node, last = node >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(
    old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> bool:
    """Whether `proof` shows that the tree of size `new` begins with that of size `old`
    (section 2.1.4.2). The empty tree begins every tree, and needs no proof."""
    if not 0 <= old <= new:
        return False
    if old in (0, new):
        return not proof and old_root == (merkle_root(b"") if old == 0 else new_root)
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = path[0]
    for part in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            before, after = node_hash(part, before), node_hash(part, after)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            after = node_hash(after, part)
        node, last = node >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root


class Frontier:
    """The right edge of a tree that grows: what is needed to add leaves and know the root.

    `edges` are the hashes that no full tile holds yet, by level from 0 upwards: those of a
    tree of `size` leaves. A hash in level L is the root over 256 ** L leaves.
    """

    def __init__(self, size: int = 0, edges: Sequence[bytes] = ()) -> None:
        self.size = size
        self.edges = [bytearray(edge) for edge in edges]

    def extend(self, leaves: bytes) -> list[Tile]:
        """Adds leaf hashes; returns the tiles that are full now, each below those above it."""
        full: list[Tile] = []
        self._extend(0, leaves, full)
        self.size += len(leaves) // HASH_SIZE
        return full

    def root(self) -> bytes:
        """MTH of all leaves (section 2.1.1)."""
        above = b""
        for edge in self.edges:
            # Over the hashes of a level, what is left of the levels below is the last one.
            if edge or above:
                above = merkle_root(bytes(edge) + above)
        return above or merkle_root(b"")

    def _extend(self, level: int, hashes: bytes, full: list[Tile]) -> None:
        if level == len(self.edges):
            self.edges.append(bytearray())
        edge = self.edges[level]
        index = (self.size // TILE_WIDTH**level) // TILE_WIDTH
        edge += hashes
        above = b""
        position = 0
        for position in range(TILE_SIZE, len(edge) + 1, TILE_SIZE):
            tile = bytes(edge[position - TILE_SIZE : position])
            full.append((level, index, tile))
            above += merkle_root(tile)
            index += 1
        if above:
            del edge[:position]
            self._extend(level + 1, above, full)


def _split(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1
