"""`inbox` and `outbox`: what waits in this device, and what nobody listens to."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidInputError
from ..transports import check_filter, topic_matches
from . import output
from .base import Shell, command, group
from .mqtt import described, print_message
from .values import checked

if TYPE_CHECKING:
    from ..message import Message

Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        metavar="FILTER",
        help="Topics; + and # allowed. May be repeated; all if left out.",
    ),
]

_INBOX_COLUMNS = ("id", "sender", "topic", "bytes", "age")
_OUTBOX_COLUMNS = ("number", "to", "topic", "bytes", "age")


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    inbox = group(app, "inbox", "Messages that the application has not taken.", panel="Messages")
    command(inbox, "list")(list_inbox)
    command(inbox, "take")(take)
    outbox = group(app, "outbox", "Messages that no broker has yet.", panel="Messages")
    command(outbox, "list")(list_outbox)


def list_inbox(shell: Shell, topic: Filters = None) -> None:
    """Shows which messages wait, the oldest first; nothing of what is in them."""
    wanted = _filters(topic)
    with shell.node() as node:
        waiting = [
            described(message) | {"bytes": len(message.payload), "age": age}
            for message, age in node.inbox.waiting()
            if _matches(message, wanted)
        ]
    _show(shell, waiting, _INBOX_COLUMNS)


def take(
    shell: Shell,
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            parser=checked(lambda text: _message_id(text).hex()),
            metavar="ID...",
            help="Messages, by their ids; see: pqc-iiot inbox list.",
        ),
    ] = None,
    topic: Filters = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Without showing them; takes an ID or --topic.")
    ] = False,
) -> None:
    """Shows messages as `listen` does, and acknowledges them: they never come again."""
    if ids and topic:
        raise InvalidInputError("choose messages by their ids or by --topic, not by both")
    if drop and not ids and not topic:
        raise InvalidInputError(
            "--drop needs to be told what", hint="an ID, or --topic '#' for everything"
        )
    wanted = _filters(topic)
    with shell.node() as node:
        waiting = node.inbox.messages()
        if ids:
            known = {message.id.hex() for message in waiting}
            if missing := [each for each in ids if each not in known]:
                raise InvalidInputError(
                    f"no message {missing[0]} waits: nothing was taken", hint="pqc-iiot inbox list"
                )
            chosen = [message for message in waiting if message.id.hex() in ids]
        else:
            chosen = [message for message in waiting if _matches(message, wanted)]
        if drop:
            node.inbox.drop(*chosen)
        else:
            for message in chosen:
                print_message(shell, message)
                node.inbox.ack_later(message)
            node.inbox.flush()
    if drop and shell.json:
        output.print_json({"dropped": len(chosen)})
    elif drop or not chosen:
        shell.note(f"{len(chosen)} dropped" if drop else "nothing waits")


def list_outbox(shell: Shell) -> None:
    """Shows which frames wait for a broker, in their order."""
    with shell.node() as node:
        waiting: list[dict[str, object]] = [
            {
                "number": entry.number,
                "to": entry.to,
                "topic": entry.context,
                "bytes": len(entry.frame),
                "age": age,
                "qos": entry.qos,
                "retain": entry.retain,
            }
            for entry, age in node.outbox.ages()
        ]
    _show(shell, waiting, _OUTBOX_COLUMNS)


def _show(shell: Shell, waiting: Sequence[dict[str, object]], columns: Sequence[str]) -> None:
    if not waiting:
        shell.note("nothing waits")
    rows = [[str(each[column]) for column in columns] for each in waiting]
    titles = [f"{each} (s)" if each == "age" else each for each in columns]
    shell.show(waiting, lambda: output.table(*titles, rows=rows))


def _filters(filters: Sequence[str] | None) -> Sequence[str]:
    for each in filters or ():
        check_filter(each)
    return filters or ()


def _matches(message: Message, filters: Sequence[str]) -> bool:
    return not filters or any(topic_matches(each, message.context) for each in filters)


def _message_id(text: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise InvalidInputError(
            f"{text[:80]!r} is no message's id", hint="pqc-iiot inbox list"
        ) from None
