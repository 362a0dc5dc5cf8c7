"""What the audit trail costs: writing, checking, proving.

The log's own bounds would remove records while this measures; so it writes one long file.
For a proof among ten million records, the tiles of all of them are on disk; of the log
there is the last part, as after a rotation: a record is found by halving the file, so that
the whole would take four more reads.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import shake_128
from pathlib import Path

from pqc_iiot._core import SigPrivateKey
from pqc_iiot.audit import verify
from pqc_iiot.audit.catalogue import EVENTS
from pqc_iiot.audit.checkpoint import NoteKey, Signer
from pqc_iiot.audit.evidence import MAX_UNSIGNED, Evidence
from pqc_iiot.audit.file import Entry, LogFile
from pqc_iiot.audit.head import Head
from pqc_iiot.audit.merkle import HASH_SIZE
from pqc_iiot.audit.prove import check, prove
from pqc_iiot.audit.segments import Retention
from pqc_iiot.bench import Row, row
from pqc_iiot.suites import FALCON_512

_BATCH = 1024
_EVENT = EVENTS["refused_replay"]
_ONE_FILE = Retention(file_bytes=1 << 40)
_PEER = "5d" * 32
TREE = 10_000_000
"""Records in the tree in which one is proven."""


def measure_audit(folder: Path, rounds: int = 5, tree: int = TREE) -> list[Row]:
    """Every bar of the evidence; needs about 700 MB of disk."""
    folder.mkdir(parents=True, exist_ok=True)
    return [*measure_writing(folder, rounds), *measure_proof(folder, rounds * 20, tree)]


def measure_writing(folder: Path, rounds: int) -> list[Row]:
    """Records chained, hashed into the tree, written, made durable, and signed as often as
    the device does; then all of it verified with the signatures."""
    signer = _signer()
    write, read = [], []
    for number in range(rounds):
        log = folder / f"{number}.log"
        begin = time.perf_counter()
        with _growing(log, signer) as (file, evidence):
            for _ in range(2 * MAX_UNSIGNED // _BATCH):
                _append(file)
                if evidence.unsigned >= MAX_UNSIGNED:
                    file.write_head()
                    evidence.write()
                    evidence.sign()
            count = file.end.seq
        write.append(count / (time.perf_counter() - begin))
        begin = time.perf_counter()
        report = verify(log, keys=[signer.key])
        read.append(report.events / (time.perf_counter() - begin))
        assert report.ok
        assert report.coverage.checkpoints
    return [
        row("audit: events chained, hashed, written, signed", write, "1/s", (">=", 100_000)),
        row("audit: events verified, with tree and signatures", read, "1/s", (">=", 500_000)),
    ]


def measure_proof(folder: Path, rounds: int, size: int) -> list[Row]:
    """Proofs of records at random places, each from the files on disk alone (the system may
    have them in its cache), and their checks with the signature."""
    signer = _signer()
    log = folder / "proof.log"
    # What was rotated away: a head file that names its last record, and hashes for its tiles.
    real = min(size // 2, 2 * MAX_UNSIGNED)
    last = b""
    with _growing(log, signer) as (file, evidence):
        while file.end.seq < size - real:
            piece = min(MAX_UNSIGNED, size - real - file.end.seq)
            hashes = shake_128(b"%d" % file.end.seq).digest(piece * HASH_SIZE)
            evidence.extend(hashes)
            evidence.write()
            last = hashes[-HASH_SIZE:]
            file._end = Head(file.end.log, file.end.seq + piece, last.hex())
        first = file.end.seq + 1
        while file.end.seq < size:
            _append(file)
            evidence.write()
        file.write_head()
        checkpoint = evidence.sign()
        assert checkpoint.size == file.end.seq >= size
    make, verify_ = [], []
    chosen = random.Random(7)
    for _ in range(rounds):
        seq = chosen.randrange(first, checkpoint.size + 1)
        begin = time.perf_counter()
        proof = prove(log, seq)
        middle = time.perf_counter()
        assert check(proof, [signer.key]).record.seq == seq
        verify_.append((time.perf_counter() - middle) * 1e3)
        make.append((middle - begin) * 1e3)
    return [
        row(f"audit: proof of one event in {size:,}, tiles on disk", make, "ms", ("<=", 10)),
        row("audit: check of that proof, with its signature", verify_, "ms"),
    ]


@contextmanager
def _growing(log: Path, signer: Signer) -> Iterator[tuple[LogFile, Evidence]]:
    file = LogFile(log, "press-4", _ONE_FILE)
    file.write()
    evidence = Evidence(log, file.end, signer, ())
    file.tree = evidence
    try:
        yield file, evidence
    finally:
        evidence.close()
        file.close()


def _append(file: LogFile) -> None:
    now = time.time_ns()
    batch: list[Entry] = [
        (
            now,
            _EVENT,
            _PEER,
            {
                "last_sequence": number,
                "sequence": number,
                "sender": "0011223344556677",
                "context": "line1/temp",
                "transport": "mqtt",
            },
        )
        for number in range(_BATCH)
    ]
    file.append(batch)
    file.write()


def _signer() -> Signer:
    key = SigPrivateKey.generate(FALCON_512.id)
    return Signer(NoteKey("press-4", FALCON_512.id, key.public_key), key.sign)
