"""The options that lead to a broker, for every command that takes them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .base import Shell

if TYPE_CHECKING:
    from ..errors import PqcIiotError
    from ..message import Incoming
    from ..node import Node
    from ..transports.bus import Bus
    from ..transports.mqtt import MqttTransport

    OnRefused = Callable[[Incoming, PqcIiotError], None]

_PANEL = "Broker"


class Version(str, Enum):
    """Versions of MQTT."""

    V5 = "5"
    V3 = "3.1.1"


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and how to reach it."""

    broker: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="mqtt://[USER@]HOST[:PORT], or mqtts:// for TLS.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The user's password.", rich_help_panel=_PANEL),
    ] = None
    ca_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Authorities of the broker's certificate (PEM); the system's if left out.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    cert_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Own certificate (PEM).", rich_help_panel=_PANEL),
    ] = None
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its key (PEM).", rich_help_panel=_PANEL),
    ] = None
    mqtt_version: Annotated[
        Version, typer.Option(help="Version of MQTT.", rich_help_panel=_PANEL)
    ] = Version.V5
    client_id: Annotated[
        str,
        typer.Option(metavar="ID", help="Random if left out.", rich_help_panel=_PANEL),
    ] = ""
    session_expiry: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            help="How long the broker keeps messages for this client id.",
            rich_help_panel=_PANEL,
        ),
    ] = 0

    @property
    def url(self) -> str:
        """The broker's URL: this machine's if left out."""
        return self.broker or "mqtt://localhost"

    def bus(self, node: Node, on_refused: OnRefused | None = None, *, sessions: bool = True) -> Bus:
        """A connection for a device; see `Bus`."""
        from ..transports.bus import Bus

        return Bus(node, self.transport(), on_refused, sessions=sessions)

    def transport(self) -> MqttTransport:
        """A connection without a device."""
        from ..transports.mqtt import MqttOptions, MqttTransport

        return MqttTransport(
            MqttOptions(
                self.url,
                password_file=self.password_file,
                ca_file=self.ca_file,
                cert_file=self.cert_file,
                key_file=self.key_file,
                version=5 if self.mqtt_version is Version.V5 else 4,
                client_id=self.client_id,
                session_expiry=self.session_expiry,
            )
        )


def with_broker(function: Callable[..., None]) -> Callable[..., None]:
    """`function(shell, broker, ...)` as a command whose options are those of `Broker` and
    its own."""
    fields = list(inspect.signature(Broker, eval_str=True).parameters.values())
    signature = inspect.signature(function, eval_str=True)
    shell, _, *own = signature.parameters.values()

    @functools.wraps(function)
    def run(shell: Shell, **values: object) -> None:
        take: Callable[..., Broker] = Broker
        broker = take(**{field.name: values.pop(field.name) for field in fields})
        function(shell, broker, **values)

    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (shell, *own, *fields)
        ]
    )
    return run
