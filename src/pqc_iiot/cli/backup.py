"""`backup` and `restore`: who this device is and whom it trusts, in one encrypted file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidInputError
from .base import Shell, command
from .files import STDIO, keep_off_terminal, read_input, writing
from .identity import INSECURE, show_bundle

if TYPE_CHECKING:
    from ..providers import PassphraseSource

_Passphrase = Annotated[
    Path | None,
    typer.Option(
        "--backup-passphrase-file",
        metavar="FILE",
        help="Holds the backup's passphrase; a systemd credential or a prompt if left out.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    command(app, "backup", panel="Device")(backup)
    command(app, "restore", panel="Device")(restore)


def backup(
    shell: Shell,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; - for a pipe.")],
    backup_passphrase_file: _Passphrase = None,
) -> None:
    """Writes this device's identity, policy and allow-list, encrypted, for `restore`."""
    keep_off_terminal(file, force=False)
    shell.prompt_of = "the device"
    with writing(file, mode=0o600) as write, shell.node() as node:
        data = node.backup(_required(_passphrase(backup_passphrase_file)))
        write(data)
        peers = node.status().peers
    if file != STDIO:
        shell.note(f"{peers} key sets of the allow-list and this device's identity: {file}")
    shell.note("make it again after each change of keys, policy or the allow-list")


def restore(
    shell: Shell,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup; - for a pipe.")],
    backup_passphrase_file: _Passphrase = None,
    provider: Annotated[
        str, typer.Option(metavar="URI", help="What keeps the new private keys.")
    ] = "software:",
    insecure_plaintext_keys: Annotated[
        bool, typer.Option("--insecure-plaintext-keys", help="Protect the stored keys by nothing.")
    ] = False,
) -> None:
    """Makes the device of a backup again, in an empty folder, with new keys."""
    from ..backup import MAX_BACKUP_SIZE
    from ..node import Node

    if insecure_plaintext_keys:
        provider = INSECURE
    if provider == INSECURE:
        shell.warn(
            "insecure", "the keys are stored in PLAIN TEXT: whoever reads the folder is this device"
        )
    data = read_input(file, MAX_BACKUP_SIZE)
    secret = _required(_passphrase(backup_passphrase_file))
    shell.prompt_of = "the device"
    passphrase = None if provider == INSECURE else shell.passphrase()
    with Node.restore(shell.state, data, secret, provider=provider, passphrase=passphrase) as node:
        show_bundle(shell, node.bundle, {"state": str(shell.state)})
    shell.note("the device has new keys; give its bundle to its peers: pqc-iiot id export FILE")
    shell.note("peers that were revoked after the backup are trusted again: pqc-iiot peer list")


def _passphrase(file: Path | None) -> PassphraseSource | None:
    from ..providers.passphrase import BACKUP_CREDENTIAL, default_source, from_file

    return from_file(file) if file else default_source(BACKUP_CREDENTIAL, "the backup")


def _required(source: PassphraseSource | None) -> PassphraseSource:
    if source is None:
        raise InvalidInputError(
            "a backup is protected by a passphrase and none was given",
            hint="give --backup-passphrase-file, a systemd credential, or answer the prompt",
        )
    return source
