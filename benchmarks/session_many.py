"""100,000 sessions in one device: `python -m benchmarks.session_many [COUNT]`, some minutes.

Every session comes from a handshake of its own and carries a packet each way. The peers share
one pair of keys under as many names, to save their making; all else is as it is.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pqc_iiot import Message, _core, bench
from pqc_iiot.session import Limits, Send, Sessions, frames
from pqc_iiot.session.frames import Kind

from .session import as_peer, device
from .session_flood import resident

TOPIC = "plant/line1/temperature"


def measure_many(folder: Path | None = None, count: int = 100_000) -> list[bench.Row]:
    """Memory of a session in the device's table, and how fast all of them are found."""
    a, b = device("a"), device("b")
    peers = {as_peer(a, n).bundle.kid: as_peer(a, n) for n in range(1, count + 1)}
    limits = Limits(total_rate=1e9, total_burst=1e9, half_open=count)
    table = Sessions(lambda: b, peers.__getitem__, limits)
    own = frames.credential(b.bundle)
    theirs: list[tuple[bytes, _core.Session]] = []
    resident_before, secret_before = resident(), sum(_core.memory_stats()[:2])
    for done, (kid, peer) in enumerate(peers.items()):
        if done % 1000 == 0:
            bench.progress(f"{done:,} of {count:,} sessions")
        start = _core.HandshakeInitiator(-24, b"\1" * 4, frames.credential(peer.bundle), own)
        table.receive(0.0, frames.make(Kind.MESSAGE_1, kid, start.message_1), None)
        (sent,) = (each for each in table.take() if isinstance(each, Send))
        signed = a.keys.sign(start.read_message_2(sent.frame[5:], as_peer(b).sig_key))
        table.receive(0.0, frames.make(Kind.MESSAGE_3, start.c_r, start.message_3(signed)), None)
        (sent,) = (each for each in table.take() if isinstance(each, Send))
        session = start.read_message_4(sent.frame[5:], 0)
        theirs.append((peer.fingerprint, session))
    secret = (sum(_core.memory_stats()[:2]) - secret_before) / (2 * count)
    whole = (resident() - resident_before) / count
    bench.progress("packets")
    begin = time.process_time()
    arrived = 0
    for _, session in theirs:
        packet = session.seal(b"\x57" + TOPIC.encode(), b"21.5")
        table.receive(0.0, packet, TOPIC)
        arrived += sum(isinstance(each, Message) for each in table.take())
    took = (time.process_time() - begin) / count * 1e6
    back = 0
    for fingerprint, session in theirs:
        answer = table.seal(0.0, fingerprint, TOPIC, b"22.0", 1)
        assert answer is not None
        back += session.open(b"\x57" + TOPIC.encode(), answer) == b"22.0"
    if (arrived, back, table.count()) != (count, count, count):
        raise RuntimeError(f"{arrived} and {back} packets, {table.count()} sessions")
    return [
        bench.row(f"sessions in one device, each used both ways ({count:,})", [float(count)], ""),
        bench.row("  … secret memory of one", [secret], "B", ("<=", 2048)),
        bench.row("  … all memory of one, both ends of it", [whole], "B"),
        bench.row("  … a packet of each in turn, sealed and opened", [took], "µs"),
    ]


if __name__ == "__main__":
    rows = measure_many(count=int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
    bench.progress("")
    sys.exit(bench.report(rows, bench.noise(), 0, json=False))
