"""`init`, `id` and `recover`: this device's keys and its public bundle."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bundle import Bundle, check_name
from ..errors import InvalidInputError
from ..identity import public_bundle
from ..policy import Policy, Trust
from ..providers import Custody
from ..suites import DEFAULT_SUITE
from . import output
from .base import Shell, command, group
from .files import STDIO, keep_off_terminal, writing
from .values import checked, custody, suite_id

if TYPE_CHECKING:
    from rich.console import RenderableType

Suite = Annotated[
    int | None,
    typer.Option(parser=checked(suite_id), metavar="N", help="Number of the suite: 1 to 7."),
]

INSECURE = "software:insecure-plaintext-keys"


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "init", panel="Device")(init)
    keys = group(app, "id", "This device's keys and public bundle.", panel="Device")
    command(keys, "show")(show)
    command(keys, "export")(export)
    command(keys, "rotate")(rotate)
    command(keys, "retire")(retire)
    command(app, "recover", panel="Device")(recover)


def init(
    shell: Shell,
    name: Annotated[
        str, typer.Argument(parser=checked(check_name), metavar="NAME", help="As peers know it.")
    ],
    suite: Suite = None,
    provider: Annotated[
        str, typer.Option(metavar="URI", help="What keeps the private keys.")
    ] = "software:",
    trust: Annotated[
        Trust, typer.Option(help="Peers are approved by hand, or trusted on first use.")
    ] = Trust.STRICT,
    suites: Annotated[
        str, typer.Option(metavar="SET", help="Suites allowed: all, hybrid or cnsa2.")
    ] = "all",
    min_custody: Annotated[
        Custody | None,
        typer.Option(
            parser=checked(custody),
            metavar="CUSTODY",
            help="What keys must be kept in, now and later: software, sealed, split or native.",
        ),
    ] = None,
    insecure_plaintext_keys: Annotated[
        bool, typer.Option("--insecure-plaintext-keys", help="Protect the stored keys by nothing.")
    ] = False,
) -> None:
    """Makes this device: its keys, its folder, its empty allow-list."""
    from ..node import Node

    if insecure_plaintext_keys:
        if provider != "software:":
            raise InvalidInputError("--insecure-plaintext-keys and --provider exclude each other")
        provider = INSECURE
    if provider == INSECURE:
        shell.warn(
            "insecure", "the keys are stored in PLAIN TEXT: whoever reads the folder is this device"
        )
    with Node.create(
        shell.state,
        name=name,
        suite=suite or DEFAULT_SUITE,
        provider=provider,
        policy=Policy(trust=trust, suites=suites, min_custody=min_custody or Custody.SOFTWARE),
        passphrase=None if provider == INSECURE else shell.passphrase(),
    ) as node:
        status = node.status()
        more = {
            "state": str(shell.state),
            "trust": trust.value,
            "custody": status.custody.lower(),
            "assurance": status.assurance.lower(),
        }
        show_bundle(shell, node.bundle, more)
    shell.note("give its bundle to its peers: pqc-iiot id export FILE")


def show(shell: Shell) -> None:
    """Shows this device's public identity; needs no passphrase."""
    show_bundle(shell, public_bundle(shell.state))


def export(
    shell: Shell,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to; standard output if left out or -.")
    ] = STDIO,
    force: Annotated[bool, typer.Option("--force", help="Even to a terminal.")] = False,
) -> None:
    """Writes this device's public bundle, for its peers; needs no passphrase."""
    bundle = public_bundle(shell.state)
    if file == STDIO and shell.json:
        encoded = base64.b64encode(bundle.encoded).decode()
        output.print_json(_described(bundle) | {"bundle": encoded})
        return
    keep_off_terminal(file, force)
    with writing(file) as write:
        write(bundle.encoded)
    if file != STDIO:
        show_bundle(shell, bundle, {"file": str(file)})
    elif sys.stderr.isatty():
        shell.note(f"fingerprint: {output.grouped(bundle.fingerprint.hex())}")


def rotate(shell: Shell, suite: Suite = None) -> None:
    """Makes new keys, signed by the current ones; peers accept them without approval."""
    with shell.node() as node:
        show_bundle(shell, node.rotate(suite))
    shell.note("give the new bundle to the peers: pqc-iiot id export FILE")


def retire(shell: Shell) -> None:
    """Gives up the keys before the last rotation: frames to them open no more."""
    with shell.node() as node:
        node.retire()
        show_bundle(shell, node.bundle)


def recover(
    shell: Shell,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Makes new keys and an empty allow-list for a device whose state was lost."""
    from ..node import Node

    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInputError(
                "recovery empties the allow-list, and nobody is here to be asked",
                hint="confirm it with --yes",
            )
        typer.confirm("New keys and an empty allow-list?", abort=True, err=True)
    with Node.recover(shell.state, passphrase=shell.passphrase()) as node:
        show_bundle(shell, node.bundle)
    shell.note("the old state is kept beside, with the ending .old")
    shell.note("add and approve the peers again: pqc-iiot peer add FILE...")


def show_bundle(shell: Shell, bundle: Bundle, more: dict[str, str] | None = None) -> None:
    """A bundle, and more facts about it."""

    def people() -> RenderableType:
        document = _described(bundle)
        rows = {key: value for key, value in document.items() if value is not None}
        rows["suite"] = f"{bundle.suite.id} ({bundle.suite.name})"
        rows["fingerprint"] = output.grouped(bundle.fingerprint.hex())
        if bundle.previous:
            rows["previous"] = output.grouped(bundle.previous.hex())
        return output.facts(rows | (more or {}))

    shell.show(_described(bundle) | (more or {}), people)


def _described(bundle: Bundle) -> dict[str, object]:
    return {
        "name": bundle.name,
        "suite": bundle.suite.id,
        "serial": bundle.serial,
        "fingerprint": bundle.fingerprint.hex(),
        "previous": bundle.previous.hex() if bundle.previous else None,
    }
