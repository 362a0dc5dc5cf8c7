"""Keys that sign checkpoints, and logs with some; for tests of the audit's evidence."""

from __future__ import annotations

from pathlib import Path

from pqc_iiot._core import SigPrivateKey
from pqc_iiot.audit import AuditLog
from pqc_iiot.audit.checkpoint import Checkpoint, NoteKey, Signer
from pqc_iiot.audit.journal import last_checkpoint

FALCON_512 = -65601


def make_signer(device: str = "press-4") -> Signer:
    """A new key of a device."""
    private = SigPrivateKey.generate(FALCON_512)
    return Signer(NoteKey(device, FALCON_512, private.public_key), private.sign)


def write(log: Path, signer: Signer, *counts: int) -> Checkpoint:
    """Adds events, with a checkpoint behind each count of them; the last checkpoint."""
    with AuditLog(log, device=signer.key.device, capacity=1 << 20) as writer:
        writer.sign_with(signer)
        for count in counts:
            for sequence in range(count):
                writer.emit("refused_replay", sequence=sequence)
            assert writer.checkpoint()
    last = last_checkpoint(log)
    assert last is not None
    return last
