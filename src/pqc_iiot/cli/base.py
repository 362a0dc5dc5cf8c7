"""What every command shares: the global options, and the device they lead to."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from . import output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..node import Node
    from ..providers import PassphraseSource

_Command = TypeVar("_Command", bound=Callable[..., None])

_GLOBAL = "Global options"
_OPTION = re.compile(r"\b(?:(?:password|ca|cert|key)_file|client_id|session_expiry)\b")
_COMMAND_HERE = re.compile(r"\bpqc-iiot (?!--|id export there|.*--help)")


@dataclass(slots=True)
class Shell:
    """The global options of one run, wherever on the command line they stand."""

    state_option: Path | None = None
    passphrase_file: Path | None = None
    json: bool = False
    verbose: bool = False
    prompt_of: str = ""
    """What the passphrase is of, for commands that ask for two."""

    @property
    def state(self) -> Path:
        """The state folder of the device."""
        return self.state_option or default_state()

    def passphrase(self) -> PassphraseSource | None:
        """The file that was given, or a systemd credential, or the terminal, or None."""
        from ..providers import passphrase

        if self.passphrase_file is not None:
            return passphrase.from_file(self.passphrase_file)
        return passphrase.default_source(of=self.prompt_of)

    def node(self) -> Node:
        """The device, open; close it."""
        from ..node import Node

        return Node.load(self.state, passphrase=self.passphrase())

    # Data, to standard output

    def show(self, document: object, people: Callable[[], RenderableType]) -> None:
        """Data: a JSON document, or what `people` makes of it."""
        if self.json:
            output.print_json(document)
        else:
            output.console().print(people())

    # Messages, to standard error

    def note(self, text: str) -> None:
        """A remark for people; programs find it in the data."""
        if not self.json:
            output.say("", self.localised(text))

    def warn(self, code: str, message: str, hint: str = "") -> None:
        """Something that a person should know, and what to do."""
        self._say("warning", code, message, hint)

    def complain(self, code: str, message: str, hint: str = "") -> None:
        """What went wrong, and what to do."""
        self._say("error", code, message, hint)

    def _say(self, kind: str, code: str, message: str, hint: str) -> None:
        hint = self.localised(hint)
        if self.json:
            output.say_json({kind: code, "message": message, "hint": hint})
            return
        output.say(kind, message)
        if hint:
            output.say("hint", hint)

    def localised(self, hint: str) -> str:
        """`hint` with the commands in it complete for this device, fit to be pasted, and
        with options as they are called here."""
        options: list[str] = []
        for option, path in (
            ("--state", self.state_option),
            ("--passphrase-file", self.passphrase_file),
        ):
            options += [option, str(path)] if path else []
        command = " ".join(["pqc-iiot", *map(shlex.quote, options), ""])
        hint = _OPTION.sub(lambda found: f"--{found[0].replace('_', '-')}", hint)
        return _COMMAND_HERE.sub(
            lambda _: command, hint.replace("version=4", "--mqtt-version 3.1.1")
        )


class LogHandler(logging.Handler):
    """What the library logs as warnings and errors is one more thing to know."""

    def __init__(self, shell: Shell) -> None:
        super().__init__(logging.WARNING)
        self._shell = shell

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._shell.warn(record.name, record.getMessage())


def default_state() -> Path:
    """Where a device lives if nothing else is said: systemd's `StateDirectory=`, else the
    system's or the user's folder for such things (XDG Base Directory Specification)."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/pqc-iiot")
    home = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local/state") / "pqc-iiot"


def take_globals(
    ctx: typer.Context,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The device's folder; $STATE_DIRECTORY, /var/lib/pqc-iiot or"
            " ~/.local/state/pqc-iiot if left out.",
            rich_help_panel=_GLOBAL,
        ),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Holds the passphrase; a systemd credential or a prompt if left out.",
            rich_help_panel=_GLOBAL,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Data and errors as JSON.", rich_help_panel=_GLOBAL)
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "-v", "--verbose", help="Say where a failure came from.", rich_help_panel=_GLOBAL
        ),
    ] = False,
) -> None:
    """Takes the global options of one place; the innermost place wins."""
    shell: Shell = ctx.obj
    shell.state_option = state or shell.state_option
    shell.passphrase_file = passphrase_file or shell.passphrase_file
    shell.json = shell.json or json
    shell.verbose = shell.verbose or verbose


_GLOBAL_PARAMETERS = inspect.signature(take_globals, eval_str=True).parameters


def command(
    app: typer.Typer, name: str, *, panel: str | None = None
) -> Callable[[_Command], _Command]:
    """Registers a function as a command that gets the `Shell` first, and takes the global
    options beside its own."""

    def register(function: _Command) -> _Command:
        app.command(name, rich_help_panel=panel)(with_globals(function))
        return function

    return register


def group(parent: typer.Typer, name: str, text: str, *, panel: str | None = None) -> typer.Typer:
    """A group of commands that takes the global options too."""
    app = typer.Typer(no_args_is_help=True)
    app.callback(help=text)(take_globals)
    parent.add_typer(app, name=name, rich_help_panel=panel)
    return app


def with_globals(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with the global options added to the parameters that Typer sees."""
    signature = inspect.signature(function, eval_str=True)
    context, *shared = _GLOBAL_PARAMETERS.values()
    parameters = [context, *list(signature.parameters.values())[1:], *shared]

    @functools.wraps(function)
    def run(ctx: typer.Context, **values: object) -> None:
        take: Callable[..., None] = take_globals
        take(ctx, **{option.name: values.pop(option.name) for option in shared})
        function(ctx.obj, **values)

    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    return run
