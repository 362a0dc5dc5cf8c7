"""The tree is RFC 9162's: its definitions, published roots, and no proof but the right one."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pqc_iiot._core import merkle_root
from pqc_iiot.audit.merkle import (
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# The eight leaves with which implementations of RFC 6962 are tested everywhere, and the
# roots of the trees over the first 0 to 8 of them.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


# The definitions of RFC 9162, section 2.1, word by word.


def mth(d: list[bytes]) -> bytes:
    if not d:
        return sha256(b"").digest()
    if len(d) == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = largest_power(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = largest_power(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], b: bool) -> list[bytes]:
    if m == len(d):
        return [] if b else [mth(d)]
    k = largest_power(len(d))
    if m <= k:
        return [*subproof(m, d[:k], b), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def largest_power(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def leaves(count: int) -> list[bytes]:
    return [b"leaf %d" % i for i in range(count)]


def hashed(d: list[bytes]) -> bytes:
    return b"".join(map(leaf_hash, d))


def subtree(d: list[bytes]):  # type: ignore[no-untyped-def]
    return lambda begin, end: merkle_root(hashed(d[begin:end]))


def test_published_roots() -> None:
    frontier = Frontier()
    for count, root in enumerate(ROOTS):
        assert mth(LEAVES[:count]).hex() == root
        assert merkle_root(hashed(LEAVES[:count])).hex() == root
        assert frontier.root().hex() == root
        frontier.extend(b"".join(map(leaf_hash, LEAVES[count : count + 1])))


def test_roots_of_published_subtrees() -> None:
    assert node_hash(leaf_hash(b""), leaf_hash(b"\0")).hex() == ROOTS[2]
    middle = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
    assert [each.hex() for each in inclusion_proof(0, 4, subtree(LEAVES))][1] == middle


@pytest.mark.parametrize("size", [*range(1, 20), 31, 32, 33, 63, 64, 65, 100, 255, 256, 257])
def test_every_proof_is_the_definitions(size: int) -> None:
    d = leaves(size)
    root = mth(d)
    for index in range(0, size, max(1, size // 40)):
        proof = inclusion_proof(index, size, subtree(d))
        assert proof == path(index, d)
        assert verify_inclusion(leaf_hash(d[index]), index, size, proof, root)
        old = index + 1
        proof = consistency_proof(old, size, subtree(d))
        assert proof == subproof(old, d, True)
        assert verify_consistency(old, size, proof, mth(d[:old]), root)
    assert consistency_proof(0, size, subtree(d)) == []


@given(st.lists(st.integers(0, 700), max_size=8))
@settings(deadline=None, max_examples=60)
def test_a_frontier_is_the_tree_however_it_grew(steps: list[int]) -> None:
    frontier, d = Frontier(), leaves(0)
    tiles: dict[tuple[int, int], bytes] = {}
    for step in steps:
        new = [b"%d %d" % (len(d), i) for i in range(step)]
        for level, index, tile in frontier.extend(hashed(new)):
            assert (level, index) not in tiles
            tiles[level, index] = tile
        d += new
        assert frontier.size == len(d)
        assert frontier.root() == mth(d)
        frontier = Frontier(frontier.size, [bytes(edge) for edge in frontier.edges])
    for index in range(len(d) // 256):
        assert tiles[0, index] == hashed(d[256 * index : 256 * index + 256])
    assert len(tiles) == len(d) // 256


def test_tiles_of_the_second_level() -> None:
    d = hashed(leaves(1)) * (65_536 + 300)
    full = Frontier().extend(d)
    (upper,) = (tile for level, _, tile in full if level == 1)
    assert upper == merkle_root(d[: 32 * 256]) * 256
    assert len(full) == 256 + 1 + 1


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_forged_proofs_are_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 200))
    old = data.draw(st.integers(1, size - 1))
    d = leaves(size)
    root, old_root = mth(d), mth(d[:old])
    inclusion = inclusion_proof(old, size, subtree(d))
    consistency = consistency_proof(old, size, subtree(d))
    leaf = leaf_hash(d[old])
    other = data.draw(st.integers(0, 400).filter(lambda n: n not in (old, size)))
    assert not verify_inclusion(leaf_hash(b"forged"), old, size, inclusion, root)
    assert not verify_inclusion(leaf, other, size, inclusion, root)
    assert not verify_consistency(other, size, consistency, old_root, root)
    assert not verify_inclusion(leaf, old, size, inclusion, old_root)
    assert not verify_consistency(old, size, consistency, root, root)
    assert not verify_consistency(old, size, consistency, old_root, old_root)
    for proof in (inclusion, consistency):
        forged = list(proof)
        change = data.draw(st.integers(0, len(proof)))
        if change < len(proof) and data.draw(st.booleans()):
            forged[change] = sha256(forged[change]).digest()
        elif change < len(proof) and data.draw(st.booleans()):
            del forged[change]
        else:
            forged.insert(change, sha256(b"more").digest())
        assert not verify_inclusion(leaf, old, size, forged, root) or proof is consistency
        assert not verify_consistency(old, size, forged, old_root, root) or proof is inclusion


def test_an_old_tree_may_be_empty_or_the_same_and_nothing_else() -> None:
    root = mth(LEAVES)
    empty = mth([])
    assert verify_consistency(0, 8, [], empty, root)
    assert not verify_consistency(0, 8, [], root, root)
    assert not verify_consistency(0, 8, [root], empty, root)
    assert verify_consistency(8, 8, [], root, root)
    assert not verify_consistency(8, 8, [], empty, root)
    assert not verify_consistency(8, 8, [root], root, root)
    assert not verify_consistency(9, 8, [], root, root)
    assert not verify_consistency(-1, 8, [], empty, root)
    assert not verify_consistency(3, 8, [], root, root)
    assert not verify_inclusion(leaf_hash(b""), 0, 0, [], empty)
