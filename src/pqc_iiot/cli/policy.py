"""`policy`: what this device allows."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ..errors import InvalidInputError
from ..policy import Policy, SessionUse, Trust
from ..providers import Custody
from . import output
from .base import Shell, command, group
from .values import checked, custody


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    policy = group(app, "policy", "What this device allows.", panel="Device")
    command(policy, "show")(show)
    command(policy, "set")(set_)


def show(shell: Shell) -> None:
    """Shows the policy."""
    with shell.node() as node:
        _show(shell, node.policy)


def set_(
    shell: Shell,
    trust: Annotated[Trust | None, typer.Option(help="How a key becomes trusted.")] = None,
    suites: Annotated[str | None, typer.Option(metavar="SET", help="all, hybrid or cnsa2.")] = None,
    min_custody: Annotated[
        Custody | None,
        typer.Option(
            parser=checked(custody), metavar="CUSTODY", help="software, sealed, split or native."
        ),
    ] = None,
    max_payload: Annotated[
        int | None, typer.Option(metavar="BYTES", help="Of a message, in and out.")
    ] = None,
    max_pending: Annotated[
        int | None, typer.Option(metavar="N", help="Bundles that may wait for approval.")
    ] = None,
    max_pinned: Annotated[
        int | None, typer.Option(metavar="N", help="Key sets that TOFU trusts by itself.")
    ] = None,
    sequence_block: Annotated[
        int | None, typer.Option(metavar="N", help="Sequence numbers reserved at once.")
    ] = None,
    rotation_overlap: Annotated[
        int | None,
        typer.Option(metavar="N", help="Numbers for which a peer's old keys stay accepted."),
    ] = None,
    sessions: Annotated[
        SessionUse | None, typer.Option(help="Whether messages go through sessions.")
    ] = None,
    session_window: Annotated[
        int | None,
        typer.Option(metavar="N", help="How late a packet of a session may come; 0: in order."),
    ] = None,
    inbox_messages: Annotated[
        int | None, typer.Option(metavar="N", help="Received, not acknowledged yet.")
    ] = None,
    inbox_bytes: Annotated[int | None, typer.Option(metavar="BYTES", help="Of these.")] = None,
    outbox_messages: Annotated[
        int | None, typer.Option(metavar="N", help="Accepted, not with the broker yet.")
    ] = None,
    outbox_bytes: Annotated[int | None, typer.Option(metavar="BYTES", help="Of these.")] = None,
    outbox_age: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="After which these are given up.")
    ] = None,
    audit_required: Annotated[
        bool | None,
        typer.Option(
            "--audit-required/--no-audit-required",
            help="Stop protecting while the audit log cannot be written, or go on.",
        ),
    ] = None,
) -> None:
    """Changes what is given, and shows the policy."""
    changes: dict[str, Trust | Custody | SessionUse | str | int | None] = {
        "trust": trust,
        "suites": suites,
        "min_custody": min_custody,
        "max_payload": max_payload,
        "max_pending": max_pending,
        "max_pinned": max_pinned,
        "sequence_block": sequence_block,
        "rotation_overlap": rotation_overlap,
        "sessions": sessions,
        "session_window": session_window,
        "inbox_messages": inbox_messages,
        "inbox_bytes": inbox_bytes,
        "outbox_messages": outbox_messages,
        "outbox_bytes": outbox_bytes,
        "outbox_age": outbox_age,
        "audit_required": audit_required,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise InvalidInputError("nothing to change", hint="pqc-iiot policy set --help")
    with shell.node() as node:
        node.policy = dataclasses.replace(node.policy, **given)  # type: ignore[arg-type]
        _show(shell, node.policy)


def _show(shell: Shell, policy: Policy) -> None:
    document = dataclasses.asdict(policy) | {
        "trust": policy.trust.value,
        "min_custody": policy.min_custody.name.lower(),
        "sessions": policy.sessions.value,
    }
    shell.show(document, lambda: output.facts(document))
