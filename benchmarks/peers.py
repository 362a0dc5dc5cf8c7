"""A device that has heard 100,000 peers: how fast it starts, and finds one of them.

The peers' bundles are real, of the default suite, but for one thing: all are signed by the
same signature key, which saves an hour of making keys. Each has a KEM key, a name and a
fingerprint of its own, and is read and verified like any other.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pqc_iiot import Bundle, Node, PeerState, _core
from pqc_iiot.bench import Row, row, timed
from pqc_iiot.bundle import make_bundle
from pqc_iiot.keystore import _peer
from pqc_iiot.providers import Custody, KeySet, open_provider
from pqc_iiot.suites import DEFAULT_SUITE, get_suite

PEERS = 100_000
_Key = TypeVar("_Key", str, bytes)
_PROVIDER = "software:insecure-plaintext-keys"


class _Keys(KeySet):
    """Keys that only sign and are never used to decrypt."""

    kem_custody = sig_custody = Custody.SOFTWARE

    def __init__(self, signer: KeySet) -> None:
        self.suite = signer.suite
        self._signer = signer
        self._public = _core.kem_public_key(self.suite.kem.id, os.urandom(32))

    @property
    def kem_public_key(self) -> bytes:
        return self._public

    @property
    def sig_public_key(self) -> bytes:
        return self._signer.sig_public_key

    def decrypt(self, enc: bytes, info: bytes, aad: bytes, ciphertext: bytes) -> bytes:
        raise NotImplementedError

    def sign(self, message: bytes) -> bytes:
        return self._signer.sign(message)


def _bundles(count: int) -> Iterator[Bundle]:
    signer, _ = open_provider(_PROVIDER).generate(get_suite(DEFAULT_SUITE))
    for number in range(count):
        yield make_bundle(f"sensor-{number}", _Keys(signer), 1)


def fill(folder: Path, count: int) -> list[tuple[str, bytes]]:
    """A device with so many approved peers, each heard once: their names and key ids."""
    with Node.create(folder, name="hub", provider=_PROVIDER) as node:
        assert node._state is not None
        keystore, store = node._state.keystore, node._state.store
        freshness = node._state.freshness
        known, bundles = [], _bundles(count)
        while batch := list(itertools.islice(bundles, 500)):
            with store.transaction():
                for bundle in batch:
                    keystore._put(_peer(bundle.name, PeerState.APPROVED, bundle))
                    freshness.stage(bundle.fingerprint, 1, bytes(8))
                freshness.put_staged()
            freshness.forget_staged()
            known += [(bundle.name, bundle.kid) for bundle in batch]
    return known


def measure_peers(folder: Path, count: int = PEERS, rounds: int = 7) -> list[Row]:
    """Start-up in seconds, look-ups in microseconds."""
    known = fill(folder, count)
    rng = random.Random(1)
    starts, by_kid, by_name, cached = [], [], [], []
    for _ in range(rounds):
        start = time.perf_counter()
        node = Node.open(folder)
        starts.append(time.perf_counter() - start)
        keystore = node._keystore
        some = rng.sample(known, min(1000, count))
        first, second = some[: len(some) // 2], some[len(some) // 2 :]
        by_kid.append(_each(keystore.sender, [kid for _, kid in first]))
        by_name.append(_each(keystore.recipient, [name for name, _ in second]))
        cached.append(_each(keystore.sender, [kid for _, kid in first]))
        node.close()
    size = statistics.mean(len(bundle.encoded) for bundle in _bundles(3))
    named = f"{count:,} peers"
    return [
        row(f"start-up, {named} of {size:.0f} B", starts, "s", ("<=", 1)),
        row(f"look-up by key id, not cached, {named}", by_kid, "µs", ("<=", 500)),
        row(f"look-up by name, not cached, {named}", by_name, "µs", ("<=", 500)),
        row(f"look-up, cached, {named}", cached, "µs", ("<=", 50)),
    ]


def _each(find: Callable[[_Key], object], keys: list[_Key]) -> float:
    """Microseconds of one look-up, each of another peer."""
    waiting = iter(keys)
    return timed(lambda: find(next(waiting)), len(keys))
