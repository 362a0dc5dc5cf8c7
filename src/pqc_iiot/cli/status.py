"""`status`: this device in facts and counters."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .base import Shell, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..audit.sinks import SinkStatus


def register(app: typer.Typer) -> None:
    """Adds this command."""
    command(app, "status", panel="Device")(status)


def status(
    shell: Shell,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="In Prometheus's text format.")
    ] = False,
) -> None:
    """Shows this device in facts and counters."""
    with shell.node() as node:
        if prometheus:
            from ..metrics import text

            print(text(node), end="")
            return
        facts = node.status()
    document = dataclasses.asdict(facts)

    def people() -> RenderableType:
        flat: dict[str, object] = {}
        for name, value in document.items():
            label = name.replace("_", " ")
            if isinstance(value, dict):
                flat[label] = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in value.items())
            elif name == "sinks":
                flat[label] = "\n".join(map(_sink, facts.sinks)) or "none"
            else:
                flat[label] = value
        return output.facts(flat | {"fingerprint": output.grouped(facts.fingerprint)})

    shell.show(document, people)


def _sink(sink: SinkStatus) -> str:
    """How one sink does, on one line."""
    numbers = f"delivered {sink.delivered}, waiting {sink.waiting}, lost {sink.lost}"
    return f"{sink.name}: {sink.error or 'works'}, {numbers}"
