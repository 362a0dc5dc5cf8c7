"""`bench` and `demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from .base import Shell, command


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "bench", panel="Try it")(bench)
    command(app, "demo", panel="Try it")(demo)


def bench(shell: Shell) -> None:
    """Measures what protection costs on this machine."""
    from ..bench import run

    raise typer.Exit(run(json=shell.json))


def demo(
    shell: Shell,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the devices' folders.")] = False,
) -> None:
    """Shows it all at work: two devices, a broker that sees nothing, and attacks."""
    from ..demo import run

    raise typer.Exit(run(json=shell.json, keep=keep))
