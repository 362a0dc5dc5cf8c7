"""`bench` and `demo`."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import typer

from .base import Shell, command


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "bench", panel="Try it")(bench)
    command(app, "demo", panel="Try it")(demo)


def bench(shell: Shell) -> None:
    """Measures what protection costs on this machine."""
    raise typer.Exit(_run("bench", shell))


def demo(shell: Shell) -> None:
    """Shows it all at work: two devices, a broker that sees nothing, and attacks."""
    raise typer.Exit(_run("demo", shell))


def _run(name: str, shell: Shell) -> int:
    run: Callable[..., int] = importlib.import_module(f"pqc_iiot.{name}").run
    return run(json=shell.json)
