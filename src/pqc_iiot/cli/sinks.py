"""`audit sinks`: where the records of the log go besides the log."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .base import Shell, command, group

if TYPE_CHECKING:
    from ..sinks import SinkProgress

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The sink's name here.")]


def register(audit: typer.Typer) -> None:
    """Adds these commands to `audit`."""
    sinks = group(audit, "sinks", "Where records go besides the log: files, syslog, OTLP.")
    command(sinks, "list")(list_)
    command(sinks, "add")(add)
    command(sinks, "remove")(remove)
    command(sinks, "test")(try_)


def list_(shell: Shell) -> None:
    """Shows the sinks and how far each has come; works while the device runs."""
    from ..sinks import list_sinks

    found = list_sinks(shell.state)
    rows = [_row(each) for each in found]
    columns = ("name", "url", "format", "delivered", "waiting", "lost")
    shell.show(
        [_document(each) for each in found],
        lambda: output.table(*columns, rows=rows),
    )
    if not found:
        shell.note("there is no sink; add one: pqc-iiot audit sinks add NAME URL")


def add(
    shell: Shell,
    name: _Name,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="syslog+tls://HOST:6514, syslog+tcp://…, syslog+udp://…, otlp+https://HOST:4318,"
            " otlp+http://…, journal: or file:///PATH?max_bytes=&max_age=&keep=",
        ),
    ],
    format_: Annotated[
        str, typer.Option("--format", help="native, ocsf, ecs or cef.", metavar="FORMAT")
    ] = "native",
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Whom to trust for the server, PEM.")
    ] = None,
    cert_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="This device's certificate, PEM.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its key, PEM, mode 0600.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Holds a bearer token, mode 0600.")
    ] = None,
) -> None:
    """Adds a sink; it begins with what the log still has, at the next start."""
    from ..audit.sinks import SinkConfig
    from ..sinks import add_sink

    files = {
        "ca_file": ca_file,
        "cert_file": cert_file,
        "key_file": key_file,
        "token_file": token_file,
    }
    paths = {option: str(path.absolute()) if path else "" for option, path in files.items()}
    sink = SinkConfig(name, url, format_, **paths)
    add_sink(shell.state, sink)
    shell.show(dataclasses.asdict(sink), lambda: output.facts({"added": name, "url": url}))
    shell.note("try it: pqc-iiot audit sinks test")


def remove(shell: Shell, name: _Name) -> None:
    """Removes a sink, and forgets how far it had come."""
    from ..sinks import remove_sink

    sink = remove_sink(shell.state, name)
    shell.show(dataclasses.asdict(sink), lambda: output.facts({"removed": name, "url": sink.url}))


def try_(
    shell: Shell,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds to wait, for all sinks together.")
    ] = 10.0,
) -> None:
    """Sends a marked record through each sink, and tells what became of it."""
    from ..sinks import check_sinks

    marker, results = check_sinks(shell.state, timeout=timeout)
    rows = [
        (
            each.name,
            "arrived" if each.ok else "FAILED",
            f"{each.seconds:.2f} s",
            each.error or (f"{each.waiting} records wait" if not each.ok else ""),
        )
        for each in results
    ]
    shell.show(
        {"marker": marker, "sinks": [dataclasses.asdict(each) for each in results]},
        lambda: output.table("sink", "result", "after", "why", rows=rows),
    )
    shell.note(f"look for the marker {marker} at the other end")
    failed = [each.name for each in results if not each.ok]
    if failed or not results:
        what = f"no record arrived at {', '.join(failed)}" if failed else "there is no sink"
        shell.complain(
            "sinks",
            what,
            "what waits stays in the log and is tried again while the device runs"
            if failed
            else "add one: pqc-iiot audit sinks add NAME URL",
        )
        raise typer.Exit(1)


def _document(each: SinkProgress) -> dict[str, object]:
    return {
        "name": each.sink.name,
        "url": each.sink.url,
        "format": each.sink.format,
        "delivered": each.delivered,
        "waiting": each.waiting,
        "lost": each.lost,
    }


def _row(each: SinkProgress) -> tuple[str, ...]:
    numbers = (each.delivered, each.waiting, each.lost)
    return (each.sink.name, each.sink.url, each.sink.format, *map(str, numbers))
