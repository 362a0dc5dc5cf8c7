"""`audit prove`, `check`, `consistency`, `checkpoint` and `witness`: evidence for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..audit.checkpoint import MAX_CHECKPOINT, Checkpoint, NoteKey
from ..audit.journal import last_checkpoint
from ..audit.prove import MAX_PROOF, Proof, check, prove, prove_consistency
from ..bundle import check_name, parse_bundle
from ..errors import AuthenticationError, InvalidInputError, StateError, TransportError
from ..identity import note_key
from ..peers import read_bundle
from ..trail import AUDIT_FILE
from . import output
from .base import Shell, command
from .broker import Broker, with_broker
from .files import STDIO, read_input, writing
from .values import checked

if TYPE_CHECKING:
    from ..audit.prove import Checked
    from ..node import Node

Bundles = Annotated[
    list[Path] | None,
    typer.Option(
        "--bundle",
        metavar="FILE",
        help="Bundle of the device or of a witness, to verify signatures. May be repeated.",
    ),
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="A checkpoint kept elsewhere, which the log must continue. May be repeated.",
    ),
]
_File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="Another log than this device's.")
]
_Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="Standard output if left out.")
]
_Note = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A file, or - for a pipe.")]


def register(audit: typer.Typer) -> None:
    """Adds these commands to the group."""
    command(audit, "checkpoint")(checkpoint_)
    command(audit, "prove")(prove_)
    command(audit, "check")(check_)
    command(audit, "consistency")(consistency_)
    command(audit, "witness")(with_broker(witness_))


def read_keys(bundles: list[Path] | None) -> list[NoteKey]:
    """The signature keys of bundle files."""
    return [note_key(parse_bundle(read_bundle(path))) for path in bundles or ()]


def read_checkpoints(files: list[Path] | None) -> list[Checkpoint]:
    """The checkpoints in files."""
    return [Checkpoint.parse(read_input(path, MAX_CHECKPOINT)) for path in files or ()]


def checkpoint_(
    shell: Shell,
    sign: Annotated[
        bool, typer.Option("--sign", help="Sign one now, of everything logged so far.")
    ] = False,
    target: _Output = STDIO,
    file: _File = None,
) -> None:
    """Gives the newest checkpoint: keep it elsewhere, and nobody can change what it covers."""
    if sign:
        with shell.node() as node:
            found = node.audit.checkpoint()
    else:
        found = last_checkpoint(file or shell.state / AUDIT_FILE)
    if found is None:
        raise StateError("there is no checkpoint", hint="pqc-iiot audit checkpoint --sign")
    with writing(target) as write:
        write(found.encode())


def prove_(
    shell: Shell,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Its seq, or its line's hash.")],
    target: _Output = STDIO,
    file: _File = None,
) -> None:
    """Proves that a record is in the log, for anyone to check without the log."""
    proof = prove(file or shell.state / AUDIT_FILE, _event(event))
    with writing(target) as write:
        write(proof.encode())


def check_(
    shell: Shell,
    proof: Annotated[Path, typer.Argument(metavar="PROOF", help="A file, or - for a pipe.")],
    bundle: Bundles = None,
) -> None:
    """Checks a proof without the log."""
    found = Proof.parse(read_input(proof, MAX_PROOF))
    result = check(found, read_keys(bundle))
    witnesses = [each.key.device for each in result.cosigned]
    document = {
        "ok": True,
        "signer": result.signer.device if result.signer else None,
        "witnesses": witnesses,
        "origin": found.checkpoint.origin,
        "index": found.index,
        "size": found.checkpoint.size,
        "root": found.checkpoint.root.hex(),
        "record": found.record.decode(),
    }
    shell.show(document, lambda: output.facts(_facts(found, result)))
    if result.signer is None:
        shell.warn(
            "unverified",
            "who signed the checkpoint was not verified",
            "give the device's bundle, from a place that you trust: --bundle FILE",
        )


def consistency_(
    shell: Shell,
    old: _Note,
    new: _Note,
    bundle: Bundles = None,
    target: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the proof there.")
    ] = None,
    file: _File = None,
) -> None:
    """Proves that a checkpoint continues an older one: nothing that it covered was changed."""
    notes = [Checkpoint.parse(read_input(path, MAX_CHECKPOINT)) for path in (old, new)]
    keys = read_keys(bundle)
    if keys and any(note.signed_by(keys) is None for note in notes):
        raise AuthenticationError("a checkpoint is signed by none of these bundles' keys")
    proof = prove_consistency(file or shell.state / AUDIT_FILE, *notes)
    if not proof.ok:
        raise AuthenticationError(
            "the newer checkpoint does not continue the older one, or the tiles are damaged",
            hint="pqc-iiot audit verify shows which",
        )
    if target is not None:
        with writing(target) as write:
            write(proof.encode())
    document = {
        "ok": True,
        "origin": proof.new.origin,
        "old_size": proof.old.size,
        "new_size": proof.new.size,
        "path": [part.hex() for part in proof.path],
    }
    people = f"the first {proof.old.size} of {proof.new.size} records are as they were"
    shell.show(document, lambda: people)


def witness_(
    shell: Shell,
    broker: Broker,
    to: Annotated[
        list[str] | None,
        typer.Option(
            parser=checked(check_name),
            metavar="PEER",
            help="Ask this peer to countersign. May be repeated.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for answers.")
    ] = 30,
    forget: Annotated[
        str | None,
        typer.Option(
            parser=checked(check_name),
            metavar="PEER",
            help="Only start anew with a peer whose log was rightly replaced.",
        ),
    ] = None,
) -> None:
    """Lets peers countersign this device's checkpoints; without --to, countersigns theirs
    until it is ended."""
    import asyncio

    from .mqtt import run_until_stopped

    if forget is not None:
        with shell.node() as node:
            node.witness.forget(forget)
        shell.note(f"what was witnessed of {forget} is forgotten")
        return

    async def work(node: Node) -> None:
        async with broker.bus(node, sessions=False) as bus:
            await asyncio.wait_for(bus.witness(*(to or ())), timeout if to else None)

    with shell.node() as node:
        try:
            run_until_stopped(work(node))
        except asyncio.TimeoutError:
            raise TransportError(
                "not every peer has answered", hint="does it run: pqc-iiot audit witness"
            ) from None
        if to:
            _show_cosigned(shell, node, to)


def _show_cosigned(shell: Shell, node: Node, peers: list[str]) -> None:
    cosigned = {peer: node.witness.cosigned(peer) for peer in peers}
    document = {peer: found.size if found else None for peer, found in cosigned.items()}
    rows = [(peer, str(size or "REFUSED")) for peer, size in document.items()]
    shell.show(document, lambda: output.table("witness", "records", rows=rows))
    if None in document.values():
        raise AuthenticationError(
            "a peer has seen another history of this log",
            hint="keep both logs as they are; on the peer: pqc-iiot audit tail",
        )


def _event(text: str) -> int | bytes:
    if len(text) == 64:
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    if text.isdecimal() and len(text) < 20:
        return int(text)
    raise InvalidInputError(f"{text[:80]!r} is no event", hint="a seq, or 64 hex digits")


def _facts(proof: Proof, result: Checked) -> dict[str, object]:
    record, checkpoint = result.record, proof.checkpoint
    times = [f"{each.key.device} ({_utc(each.time)})" for each in result.cosigned]
    return {
        "event": f"{record.event} ({record.id}, {record.severity.label})",
        "time": record.time,
        "device": record.device or "-",
        "record": f"{record.seq} of {checkpoint.size}",
        "log": checkpoint.origin,
        "signed by": result.signer.device if result.signer else "not verified",
        "witnesses": ", ".join(times) or "-",
    }


def _utc(seconds: int) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(seconds, 1 << 40)))
