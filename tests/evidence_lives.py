"""Run by test_audit_evidence: a log's writer that is killed in front of each of its calls that
change a file, one after the other, each time on a fresh copy of a log; and what is true then.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from notes import make_signer, write
from pqc_iiot.audit import AuditLog, tail, verify
from pqc_iiot.audit.checkpoint import Checkpoint, Signer
from pqc_iiot.audit.journal import last_checkpoint
from pqc_iiot.audit.tiles import tile_file, tiles_path

CALLS = ("open", "mkdir", "write", "fsync", "fdatasync", "ftruncate", "rename", "replace", "unlink")
really_write = os.write


def arm(point: int) -> None:
    """Ends this process by SIGKILL in front of its call number `point`."""
    left = point

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def live(folder: Path, signer: Signer, point: int) -> None:
    """Opens the log, adds to it, and tells which checkpoints it was given."""
    journal = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT)
    arm(point)
    with AuditLog(folder / "audit.log", device="press-4") as log:
        log.sign_with(signer)
        for count in (200, 70):
            for _ in range(count):
                log.emit("started")
            checkpoint = log.checkpoint()
            assert checkpoint is not None
            really_write(journal, checkpoint.encode() + b"\0")


def lose_what_was_not_synced(log: Path) -> None:
    """A loss of power leaves of these files what it likes: all that no checkpoint covers."""
    last = last_checkpoint(log)
    assert last is not None
    kept = set()
    for level in range(3):
        index, width = divmod(last.size // 256**level, 256)
        folder = tiles_path(log) / "tile"
        kept |= {tile_file(folder, level, each, 256) for each in range(index)}
        kept.add(tile_file(folder, level, index, width))
    for path in (tiles_path(log) / "tile").rglob("*"):
        if path.is_file() and path not in kept:
            path.write_bytes(bytes(path.stat().st_size // 2))


def check(folder: Path, signer: Signer) -> None:
    """Whatever happened, the log goes on, and continues every checkpoint that was told."""
    log = folder / "audit.log"
    told = [Checkpoint.parse(n) for n in (folder / "journal").read_bytes().split(b"\0")[:-1]]
    lose_what_was_not_synced(log)
    write(log, signer, 10)
    report = verify(log, keys=[signer.key], checkpoints=told)
    assert report.ok, report
    assert report.coverage.signed_seq == report.last_seq
    assert "checkpoint_refused" not in [record.event for record in tail(log, 2000)]


def in_child(job: Callable[[], None]) -> int:
    """How a child ended: its exit code, or -9."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    """Every point, until a life comes to its own end; prints how many there were."""
    signer = make_signer()
    template = folder / "template"
    template.mkdir()
    assert in_child(lambda: _ignore(write(template / "audit.log", signer, 200, 100))) == 0
    point, code = 0, -signal.SIGKILL
    while code:
        point += 1
        life = folder / str(point)
        shutil.copytree(template, life)
        code = in_child(lambda: live(life, signer, point))  # noqa: B023 - done before the next
        assert code in (0, -signal.SIGKILL), code
        assert in_child(lambda: check(life, signer)) == 0, point  # noqa: B023
        shutil.rmtree(life)
    print(point)


def _ignore(_: object) -> None: ...


if __name__ == "__main__":
    main(Path(sys.argv[1]))
