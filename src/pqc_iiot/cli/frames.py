"""`seal` and `open`: one message between files and pipes."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..bundle import check_name
from ..envelope import MAX_OVERHEAD, parse
from ..errors import AuthenticationError, DuplicateError
from ..message import Message
from ..policy import MAX_PAYLOAD
from . import output
from .base import Shell, command
from .files import STDIO, keep_off_terminal, read_input, writing
from .values import checked

Context = Annotated[
    str, typer.Option(metavar="TEXT", help="What the message is bound to, such as its topic.")
]
Source = Annotated[
    Path, typer.Argument(metavar="IN", help="A file; standard input if left out or -.")
]
Target = Annotated[
    Path, typer.Argument(metavar="OUT", help="A file; standard output if left out or -.")
]

# For the person at the keyboard; the network is told nothing of the kind.
_HINTS = {
    AuthenticationError.code: "check --context: it must be exactly what the sender gave",
    DuplicateError.code: "a frame opens once",
}


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "seal", panel="Messages")(seal)
    command(app, "open", panel="Messages")(open_)


def seal(
    shell: Shell,
    to: Annotated[
        str,
        typer.Option(parser=checked(check_name), metavar="NAME", help="The peer it is for."),
    ],
    source: Source = STDIO,
    target: Target = STDIO,
    context: Context = "",
    force: Annotated[bool, typer.Option("--force", help="Even to a terminal.")] = False,
) -> None:
    """Protects a message: a frame that only one peer can open."""
    to_json = shell.json and target == STDIO
    if not to_json:
        keep_off_terminal(target, force)
    payload = read_input(source, MAX_PAYLOAD)
    with shell.node() as node, writing(target) as write:
        frame = node.seal(payload, to=to, context=context)
        if not to_json:
            write(frame)
    if not shell.json:
        return
    document: dict[str, object] = {"to": to, "context": context, "sequence": parse(frame).sequence}
    if to_json:
        document["frame"] = base64.b64encode(frame).decode()
    else:
        document |= {"file": str(target), "bytes": len(frame)}
    output.print_json(document)


def open_(
    shell: Shell,
    source: Source = STDIO,
    target: Target = STDIO,
    context: Context = "",
) -> None:
    """Opens a frame, once: writes what was sent, if it is genuine, new and from a peer."""
    frame = read_input(source, MAX_PAYLOAD + MAX_OVERHEAD)
    # The file is made before the frame is opened: a frame opens only once.
    with shell.node() as node, writing(target, mode=0o600) as write:
        try:
            message = node.open(frame, context=context)
        except (AuthenticationError, DuplicateError) as error:
            error.hint = error.hint or _HINTS[error.code]
            raise
        if target != STDIO:
            write(message.payload)
        elif not shell.json:
            _print(message)
    if not shell.json:
        shell.note(f"from {message.sender}, number {message.sequence}")
        return
    document: dict[str, object] = {
        "sender": message.sender,
        "fingerprint": message.fingerprint.hex(),
        "sequence": message.sequence,
        "context": message.context,
    }
    if target == STDIO:
        document |= output.payload_json(message.payload)
    else:
        document |= {"file": str(target), "bytes": len(message.payload)}
    output.print_json(document)


def _print(message: Message) -> None:
    """To a pipe as it is; to a terminal so that it cannot take control of it."""
    if sys.stdout.isatty():
        print(output.payload_text(message.payload, keep="\n\t"))
    else:
        output.write_bytes(message.payload)
