"""`status`: this device in facts and counters."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

from . import output
from .base import Shell, command

if TYPE_CHECKING:
    from rich.console import RenderableType


def register(app: typer.Typer) -> None:
    """Adds this command."""
    command(app, "status", panel="Device")(status)


def status(shell: Shell) -> None:
    """Shows this device in facts and counters."""
    with shell.node() as node:
        facts = node.status()
    document = dataclasses.asdict(facts)

    def people() -> RenderableType:
        flat: dict[str, object] = {}
        for name, value in document.items():
            label = name.replace("_", " ")
            if isinstance(value, dict):
                flat[label] = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in value.items())
            else:
                flat[label] = value
        return output.facts(flat | {"fingerprint": output.grouped(facts.fingerprint)})

    shell.show(document, people)
