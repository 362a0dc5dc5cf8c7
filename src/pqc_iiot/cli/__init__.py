"""The command line `pqc-iiot`: a thin shell around `pqc_iiot.Node`.

Exit codes: 0 done, 1 failed, 2 called wrongly, 3 refused for security reasons, 4 the state
folder is locked or unsafe (130 interrupted). `main` is the one place where errors end.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from ..errors import PqcIiotError
from . import (
    audit,
    backup,
    doctor,
    extra,
    frames,
    identity,
    inspect,
    mqtt,
    output,
    peer,
    policy,
    provider,
    queues,
    status,
)
from .base import LogHandler, Shell, with_globals

__all__ = ["app", "main"]

PROGRAM = "pqc-iiot"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(PROGRAM, version(PROGRAM))
        raise typer.Exit


def _root(
    shell: Shell,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Post-quantum end-to-end protection for industrial messages."""


app.callback()(with_globals(_root))
for _commands in (
    *(identity, provider, backup, peer, frames, mqtt, queues, inspect),
    *(policy, status, doctor, audit, extra),
):
    _commands.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. `arguments` are `sys.argv`'s if left out."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Known before the words are parsed: they may not even be parsable.
    shell = Shell(json="--json" in words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with _clean_messages(shell):
        try:
            result = app(words, prog_name=PROGRAM, standalone_mode=False, obj=shell)
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
        except SystemExit:
            raise
        except BaseException as error:
            return _end(error, shell)


def _end(error: BaseException, shell: Shell) -> int:
    """Says what went wrong; returns the exit code for it."""
    match error:
        case KeyboardInterrupt():
            return 130
        case PqcIiotError():
            shell.complain(error.code, str(error), error.hint)
            return error.exit_code
        case typer.TyperException():
            # Without a message, the help has been printed already.
            if message := error.format_message().strip():
                context: typer.Context | None = getattr(error, "ctx", None)
                command = context.command_path if context else PROGRAM
                shell.complain("usage", message, f"{command} --help")
            return error.exit_code
        case typer.Abort():
            shell.complain("aborted", "there was no answer")
        case BrokenPipeError():
            _give_up_output()
        case OSError():
            _give_up_output()
            shell.complain("system", error.strerror or type(error).__name__)
        case _:
            hint = "please report this" + ("" if shell.verbose else ", with what -v adds")
            shell.complain("unexpected", f"unexpected {type(error).__name__}", hint)
            for line in traceback.format_exception(error) if shell.verbose else ():
                print(output.escape(line.rstrip(), keep="\n"), file=sys.stderr)
    return 1


def _give_up_output() -> None:
    """Drops what is buffered if nobody takes it, so that nothing fails at exit once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _clean_messages(shell: Shell) -> Iterator[None]:
    """Warnings and log records become single lines like every other message."""

    def show_warning(
        message: Warning | str, category: type[Warning], *_: object, **__: object
    ) -> None:
        shell.warn(category.__name__, str(message))

    handler = LogHandler(shell)
    logger = logging.getLogger("pqc_iiot")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.resetwarnings()
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = show_warning
            yield
    finally:
        logger.removeHandler(handler)
