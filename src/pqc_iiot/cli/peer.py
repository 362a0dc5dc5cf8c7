"""`peer`: who may send to this device and receive from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bundle import Bundle, check_name, parse_bundle, parse_fingerprint
from ..errors import InvalidInputError, PqcIiotError, StateError, UnknownPeerError
from ..keystore import Peer
from ..peers import read_bundle
from . import output
from .base import Shell, command, group
from .values import checked, peer_words

if TYPE_CHECKING:
    from ..peers import Peers

Words = Annotated[
    list[str],
    typer.Argument(metavar="PEER", help="Its name or its fingerprint, spaces allowed."),
]
LocalName = Annotated[
    str | None,
    typer.Option(
        parser=checked(check_name), metavar="NAME", help="Another name for it on this device."
    ),
]

_WAITING = "pending"
_COLUMNS = ("name", "state", "suite", "serial", "fingerprint")


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    peer = group(app, "peer", "The allow-list: who may send and receive.", panel="Device")
    command(peer, "add")(add)
    command(peer, "pending")(pending)
    command(peer, "approve")(approve)
    command(peer, "list")(list_)
    command(peer, "show")(show)
    command(peer, "revoke")(revoke)


def add(
    shell: Shell,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Bundles of peers.")],
    approve: Annotated[
        list[str] | None,
        typer.Option(
            parser=checked(lambda text: parse_fingerprint(text).hex()),
            metavar="FINGERPRINT",
            help="Approve the bundle with this fingerprint at once. May be repeated.",
        ),
    ] = None,
    name: LocalName = None,
) -> None:
    """Takes in bundles. They wait for approval, unless their fingerprint is given."""
    if name and (len(files) > 1 or not approve):
        raise InvalidInputError("--name is for one bundle that is approved at once")
    failed = 0
    taken: list[dict[str, object]] = []
    with shell.node() as node:
        for file in files:
            try:
                taken.append({"file": str(file), **_take(node.peers, file, approve, name)})
            except StateError:
                raise
            except PqcIiotError as error:
                shell.complain(error.code, f"{file}: {error}", error.hint)
                failed = max(failed, error.exit_code)
        waiting = {entry["fingerprint"] for entry in taken if entry["state"] == _WAITING}
        dropped = waiting - {bundle.fingerprint.hex() for bundle in node.peers.pending()}
    shell.show(taken, lambda: output.table(*_COLUMNS, rows=map(_row, taken)))
    for fingerprint in set(approve or ()) - {entry["fingerprint"] for entry in taken}:
        shell.complain("unknown_peer", f"no bundle given has the fingerprint {fingerprint}")
        failed = max(failed, UnknownPeerError.exit_code)
    if dropped:
        shell.complain(
            "pending_full",
            f"{len(dropped)} of these bundles had to leave the pending list again",
            "approve them as you add them (--approve), or: pqc-iiot policy set --max-pending N",
        )
        failed = max(failed, 1)
    if waiting and not failed:
        what = waiting.pop() if len(waiting) == 1 else "FINGERPRINT"
        shell.note(f"compare fingerprints, then: pqc-iiot peer approve {what}")
    if failed:
        raise typer.Exit(failed)


def _take(
    peers: Peers, file: Path, approved: Sequence[str] | None, name: str | None
) -> dict[str, object]:
    data = read_bundle(file)
    if not approved:
        return _described(peers.add(data) or parse_bundle(data))
    bundle = parse_bundle(data)
    if bundle.fingerprint.hex() not in approved:
        raise UnknownPeerError(
            f"its fingerprint is not one of those to approve: {bundle.fingerprint.hex()}",
            hint="find out why: this is another bundle than the one you compared",
        )
    return _described(peers.add_approved(bundle, name or ""))


def pending(shell: Shell) -> None:
    """Shows the bundles that wait for approval."""
    with shell.node() as node:
        waiting = [_described(bundle) for bundle in node.peers.pending()]
    shell.show(waiting, lambda: output.table(*_COLUMNS, rows=map(_row, waiting)))


def approve(shell: Shell, peer: Words, name: LocalName = None) -> None:
    """Trusts a bundle that waits: compare its fingerprint with the device's own first."""
    with shell.node() as node:
        _show(shell, node.peers.approve(peer_words(peer), name or ""))


def list_(shell: Shell) -> None:
    """Shows every key set on the allow-list."""
    with shell.node() as node:
        known = [_described(peer) for peer in node.peers.list()]
    if not known:
        shell.note("the allow-list is empty: everybody is refused")
    shell.show(known, lambda: output.table(*_COLUMNS, rows=map(_row, known)))


def show(shell: Shell, peer: Words) -> None:
    """Shows one peer."""
    with shell.node() as node:
        _show(shell, node.peers.get(peer_words(peer)))


def revoke(shell: Shell, peer: Words) -> None:
    """Refuses a peer from now on, in both directions, with all of its keys."""
    with shell.node() as node:
        revoked = [_described(each) for each in node.peers.revoke(peer_words(peer))]
    shell.show(revoked, lambda: output.table(*_COLUMNS, rows=map(_row, revoked)))


def _show(shell: Shell, peer: Peer) -> None:
    document = _described(peer)
    people = {
        **document,
        "suite": f"{peer.bundle.suite.id} ({peer.bundle.suite.name})",
        "fingerprint": output.grouped(peer.fingerprint.hex()),
    }
    shell.show(document, lambda: output.facts(people))


def _described(peer: Peer | Bundle) -> dict[str, object]:
    bundle = peer if isinstance(peer, Bundle) else peer.bundle
    return {
        "name": peer.name,
        "state": _WAITING if isinstance(peer, Bundle) else peer.state.value,
        "suite": bundle.suite.id,
        "serial": bundle.serial,
        "fingerprint": bundle.fingerprint.hex(),
    }


def _row(document: Mapping[str, object]) -> list[str]:
    cells = {key: str(document[key]) for key in _COLUMNS}
    return list((cells | {"fingerprint": output.grouped(cells["fingerprint"])}).values())
