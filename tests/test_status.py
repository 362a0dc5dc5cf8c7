"""What a device says of itself."""

from __future__ import annotations

import dataclasses
import json

from devices import PLAINTEXT, Pair
from foreign import Foreign
from pqc_iiot import Policy


def test_a_status_tells_what_is(pair: Pair) -> None:
    status = pair.plc.status()
    assert (status.name, status.suite, status.serial) == ("plc", 1, 1)
    assert status.fingerprint == pair.plc.bundle.fingerprint.hex()
    assert status.suite_name == "MLKEM768-X25519 + Falcon-512 + AES-256-GCM"
    assert (status.provider, status.custody) == (PLAINTEXT, "SOFTWARE")
    assert (status.trust, status.suites_allowed) == ("strict", "all")
    assert (status.peers, status.pending) == (1, 0)
    assert (status.previous_keys, status.numbers_reserved) == (False, 0)


def test_it_follows_what_happens(pair: Pair) -> None:
    before = pair.plc.status()
    pair.plc.peers.add(Foreign(3).bundle())
    pair.plc.rotate()
    pair.plc.seal(b"x", to="sensor")
    pair.plc.policy = Policy(suites="hybrid")
    after = pair.plc.status()
    assert (after.serial, after.previous_keys, after.pending) == (2, True, 1)
    assert after.fingerprint != before.fingerprint
    assert after.numbers_reserved == 1024
    assert after.suites_allowed == "hybrid"
    assert after.store.commits > before.store.commits
    assert after.audit.written >= before.audit.written
    pair.reopen()
    assert pair.plc.status().epoch == after.epoch + 2


def test_secret_memory_is_accounted_for(pair: Pair) -> None:
    memory = pair.plc.status().memory
    assert memory.locked + memory.unlocked > 0
    assert memory.unlocked == 0 or memory.lock_failures > 0


def test_it_is_data(pair: Pair) -> None:
    values = json.loads(json.dumps(dataclasses.asdict(pair.plc.status())))
    assert values["store"].keys() == {"commits", "fsyncs", "rows"}
