"""Sessions, measured: packets, handshakes, memory, and many who return at once.

Where the time goes: a packet is the AEAD (about three quarters of a packet in a batch, with
its key expanded), one new `bytes` with its place in a list, and for a single one the call from
Python and wiping the stack. The key stays expanded in locked memory, because setting it up
takes longer than the packet. A handshake is two Falcon signatures, three KEM operations,
and about a sixth of SHA-384: transcript, key schedule, keystream.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pqc_iiot import _core
from pqc_iiot.bench import BATCH, PAYLOAD, Row, core_time, row, timed
from pqc_iiot.bundle import make_bundle
from pqc_iiot.identity import OwnKeys
from pqc_iiot.keystore import Peer, PeerState, _peer
from pqc_iiot.providers import open_provider
from pqc_iiot.session import Limits, Send, Sessions, frames
from pqc_iiot.session.frames import Kind
from pqc_iiot.suites import get_suite

TOPIC = b"plant/line1/temperature"
_PRIMITIVES = (
    ("MLKEM768-X25519 generate", 1),
    ("MLKEM768-X25519 encapsulate", 1),
    ("MLKEM768-X25519 decapsulate", 1),
    ("Falcon-512 sign", 2),
    ("Falcon-512 verify", 2),
)


def device(name: str) -> OwnKeys:
    """Keys of suite 1."""
    provider = open_provider("software:insecure-plaintext-keys")
    keys, blob = provider.generate(get_suite(1))
    return OwnKeys(keys, make_bundle(name, keys, 1), blob)


def as_peer(own: OwnKeys, number: int = 0) -> Peer:
    """A device as a trusted peer; with a number, one of many that share its keys."""
    peer = _peer(own.bundle.name, PeerState.APPROVED, own.bundle)
    if not number:
        return peer
    other = number.to_bytes(8, "big") + own.bundle.fingerprint[8:]
    return dataclasses.replace(peer, bundle=dataclasses.replace(own.bundle, fingerprint=other))


def handshake(a: OwnKeys, b: OwnKeys) -> Callable[[], tuple[_core.Session, _core.Session]]:
    """Both sides' computation, nothing between them."""
    one, other = frames.credential(a.bundle), frames.credential(b.bundle)
    key_a, key_b = as_peer(a).sig_key, as_peer(b).sig_key
    suite = b.bundle.suite.edhoc

    def run() -> tuple[_core.Session, _core.Session]:
        initiator = _core.HandshakeInitiator(suite, b"\1" * 4, one, other)
        responder = _core.HandshakeResponder(suite, initiator.message_1, b"\2" * 4, other)
        message_2 = responder.message_2(b.keys.sign(responder.to_be_signed))
        signed = a.keys.sign(initiator.read_message_2(message_2, key_b))
        message_4, theirs = responder.read_message_3(initiator.message_3(signed), one, key_a, 0)
        return initiator.read_message_4(message_4, 0), theirs

    return run


def measure_packets(a: OwnKeys, b: OwnKeys, rounds: int = 30) -> list[Row]:
    """One packet and batches, against `cryptography`'s AESGCM on the same bytes."""
    out, in_ = handshake(a, b)()
    bare, nonce = AESGCM(bytes(32)), bytes(12)
    sealed = bare.encrypt(nonce, PAYLOAD, TOPIC)
    payloads = [PAYLOAD] * BATCH
    calls = 8 * BATCH
    many, same = [TOPIC] * calls, [PAYLOAD] * calls
    nonces, sealeds = [nonce] * calls, [sealed] * calls
    names = ("seal", "open", "seal_many", "open_many")
    ratios: dict[str, list[float]] = {name: [] for name in (*names, "core", "core open")}
    times: dict[str, list[float]] = {name: [] for name in names}
    encrypt, decrypt, seal, open_ = bare.encrypt, bare.decrypt, out.seal, in_.open
    for _ in range(rounds):
        base_seal = _each(lambda: [*map(encrypt, nonces, same, many)], calls)
        base_open = _each(lambda: [*map(decrypt, nonces, sealeds, many)], calls)
        packets: list[bytes] = []
        one_seal = _each(lambda p=packets: p.extend(map(seal, many, same)), calls)  # type: ignore[misc]
        one_open = _each(lambda p=packets: [*map(open_, many, p)], calls)  # type: ignore[misc]
        batch: list[bytes] = []
        many_seal = _each(lambda s=batch: s.extend(out.seal_many(TOPIC, payloads)), BATCH)  # type: ignore[misc]
        many_open = _each(lambda s=batch: in_.open_many(TOPIC, s), BATCH)  # type: ignore[misc]
        for name, value, base in (
            ("seal", one_seal, base_seal),
            ("open", one_open, base_open),
            ("seal_many", many_seal, base_seal),
            ("open_many", many_open, base_open),
        ):
            times[name].append(value)
            ratios[name].append(value / base)
        seal_core, open_core = (
            core_time(f"AES-256-GCM {what} 64, key expanded", 2000) for what in ("seal", "open")
        )
        ratios["core"].append(many_seal / seal_core)
        ratios["core open"].append(many_open / open_core)
    with_version = f"cryptography {metadata.version('cryptography')}"
    rows = []
    for name in names:
        bar = 0.45 if name in ("seal", "open") else 0.25
        what = f"session packet, {name.replace('_many', f' in batches of {BATCH}')}, 64 B"
        rows.append(row(what, times[name], "µs"))
        rows.append(
            row("  … against a bare AESGCM call", ratios[name], "x", ("<=", bar), with_version)
        )
    for name, what in (("core", "seal"), ("core open", "open")):
        against = f"{what} in batches, against the AEAD in the core, key expanded"
        rows.append(row(against, ratios[name], "x", ("<=", 1.4)))
    packet = out.seal(TOPIC, PAYLOAD)
    rows.append(
        row("packet bytes beyond the payload", [float(len(packet) - len(PAYLOAD))], "B", ("<=", 24))
    )
    return rows


def _each(work: Callable[[], object], count: int) -> float:
    return timed(work, 1) / count


def measure_handshakes(a: OwnKeys, b: OwnKeys, rounds: int = 30) -> list[Row]:
    """Both sides together, against the sum of the primitives; and all bytes."""
    run = handshake(a, b)
    times, ratios = [], []
    for _ in range(rounds):
        times.append(timed(run, 8))
        ratios.append(times[-1] / sum(n * core_time(name, 16) for name, n in _PRIMITIVES))
    sent = _meet(a, b)
    return [
        row("handshake, both sides' computation, suite 1", times, "µs"),
        row("  … against the sum of its primitives", ratios, "x", ("<=", 1.2)),
        row("handshake bytes, suite 1, all messages", [float(sent)], "B", ("<=", 3760)),
        *_memory(run),
    ]


def _meet(a: OwnKeys, b: OwnKeys) -> int:
    """The bytes of a handshake between two tables."""
    peers = {own.bundle.kid: as_peer(own) for own in (a, b)}

    one, other = Sessions(lambda: a, peers.get), Sessions(lambda: b, peers.get)
    one.send(0.0, as_peer(b), "t", b"", 1)
    sent, moving = 0, True
    while moving:
        moving = False
        for side, to in ((one, other), (other, one)):
            for each in side.take():
                if isinstance(each, Send):
                    moving = True
                    sent += len(each.frame) * (each.frame[0] != Kind.PACKET)
                    to.receive(0.0, each.frame, each.context)
    return sent


def _memory(run: Callable[[], tuple[_core.Session, _core.Session]], pairs: int = 1000) -> list[Row]:
    """Secret memory of many sessions, and what Rust holds beside it."""
    run()
    before = sum(_core.memory_stats()[:2])
    kept = [run() for _ in range(pairs)]
    secret = (sum(_core.memory_stats()[:2]) - before) / (2 * pairs)
    beside = kept[0][0].__sizeof__()
    return [row("memory of a session in the core", [secret + beside], "B", ("<=", 2048))]


def measure_return(a: OwnKeys, b: OwnKeys, peers: int = 400, rounds: int = 5) -> list[Row]:
    """Many peers that reconnect at once to one device, on one core: handshakes served,
    against what one responder side costs at least."""
    many = {as_peer(a, n).bundle.kid: as_peer(a, n) for n in range(1, peers + 1)}
    ratios, rates = [], []
    own = frames.credential(b.bundle)
    limits = Limits(total_rate=1e9, total_burst=1e9, half_open=peers)
    for _ in range(rounds):
        served = Sessions(lambda: b, many.__getitem__, limits)
        spent = bare = 0.0
        for kid, peer in many.items():
            theirs = frames.credential(peer.bundle)
            for table in (served, None):
                starts = _core.HandshakeInitiator(-24, b"\1" * 4, theirs, own)
                start = time.perf_counter()
                if table:
                    table.receive(0.0, frames.make(Kind.MESSAGE_1, kid, starts.message_1), None)
                    (sent,) = (each for each in table.take() if isinstance(each, Send))
                    message_2 = sent.frame[5:]
                else:
                    responder = _core.HandshakeResponder(-24, starts.message_1, b"\2" * 4, own)
                    message_2 = responder.message_2(b.keys.sign(responder.to_be_signed))
                used = time.perf_counter() - start
                message_3 = starts.message_3(
                    a.keys.sign(starts.read_message_2(message_2, as_peer(b).sig_key))
                )
                start = time.perf_counter()
                if table:
                    table.receive(0.0, frames.make(Kind.MESSAGE_3, starts.c_r, message_3), None)
                    spent += used + time.perf_counter() - start
                    if [each.frame[0] for each in table.take() if isinstance(each, Send)] != [
                        Kind.MESSAGE_4
                    ]:
                        raise RuntimeError("a handshake was refused")
                else:
                    responder.read_message_3(message_3, theirs, peer.sig_key, 0)
                    bare += used + time.perf_counter() - start
        rates.append(peers / spent)
        ratios.append(bare / spent)
    return [
        row("handshakes served to peers that return at once, one core", rates, "1/s"),
        row("  … against one responder side alone", ratios, "x", (">=", 0.8)),
    ]


def measure_sessions(_: Path | None = None) -> list[Row]:
    """Everything of sessions that is measured on one core."""
    a, b = device("a"), device("b")
    return [*measure_packets(a, b), *measure_handshakes(a, b), *measure_return(a, b)]


if __name__ == "__main__":
    from pqc_iiot.bench import noise, pinned, report

    with pinned() as core:
        found = measure_sessions()
        raise SystemExit(report(found, noise(), core, json=False))
