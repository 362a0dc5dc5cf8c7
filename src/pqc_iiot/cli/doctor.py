"""`doctor`: is everything as it must be, and if not, what repairs it?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from . import output
from .base import Shell, command
from .broker import Broker, with_broker

if TYPE_CHECKING:
    from .checks import Check

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def register(app: typer.Typer) -> None:
    """Adds this command."""
    command(app, "doctor", panel="Device")(with_broker(doctor))


def doctor(shell: Shell, broker: Broker) -> None:
    """Checks this device and its surroundings, and says what repairs what it finds."""
    found = [
        dataclasses.replace(check, fix=shell.localised(check.fix))
        for check in _checks(shell, broker)
    ]
    failed = [check for check in found if check.outcome == "failed"]
    document = {"ok": not failed, "checks": [dataclasses.asdict(check) for check in found]}
    if shell.json:
        output.print_json(document)
    else:
        _print(found)
    if failed:
        raise typer.Exit(1)


def _checks(shell: Shell, broker: Broker) -> Iterator[Check]:
    from . import checks

    state = shell.state
    folder = checks.folder(state)
    yield folder
    if state.is_dir():
        yield checks.lock(state)
        yield checks.durable_writes(state)
        yield checks.disk_space(state)
        yield checks.audit_log(state)
    yield checks.self_tests()
    yield checks.entropy()
    yield checks.clock()
    if folder.outcome == "ok":
        yield from checks.device(shell)
    else:
        yield checks.Check("keys", "skipped", "the folder comes first")
        yield checks.secret_memory()
    if broker.broker:
        yield from checks.broker(broker, state)


def _print(found: list[Check]) -> None:
    from rich.text import Text

    console = output.console()
    for check in found:
        outcome = (f"{check.outcome:9}", _STYLES[check.outcome])
        text = Text.assemble(outcome, f"{check.name:16}", output.escape(check.found))
        if check.fix:
            text.append(f"\n{'fix:':>25} {output.escape(check.fix)}")
        # Lines are not broken: a command can be copied as it stands.
        console.print(text, soft_wrap=True)
