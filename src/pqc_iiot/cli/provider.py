"""`provider`: what keeps the private keys, what it can do, and what it states of itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bundle import parse_bundle
from ..errors import InvalidInputError
from ..identity import IDENTITY_FILE
from ..providers import Capability, Custody, Operation, registry
from ..providers.evidence import MAX_EVIDENCE, decode_evidence, quote_nonce, verify_quote
from . import output
from .base import Shell, command, group
from .files import STDIO, keep_off_terminal, read_input, writing
from .values import checked, suite_id

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..conformance import Report

_NONCE = range(8, 65)


def nonce(text: str) -> bytes:
    """A verifier's nonce: 8 to 64 bytes in hex."""
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) not in _NONCE:
        raise InvalidInputError("a nonce is 8 to 64 bytes in hex", hint="openssl rand -hex 32")
    return value


Nonce = Annotated[
    bytes,
    typer.Option(parser=checked(nonce), metavar="HEX", help="The verifier's, used once."),
]


def register(app: typer.Typer) -> None:
    """Adds these commands."""
    provider = group(app, "provider", "What keeps the private keys.", panel="Device")
    command(provider, "list")(list_)
    command(provider, "test")(try_out)
    command(provider, "quote")(quote)
    command(provider, "verify-quote")(verify)


def list_(shell: Shell) -> None:
    """Shows the providers that there are, and how this device's keys are held."""
    schemes = [asdict(found) for found in registry.described()]
    document: dict[str, object] = {"schemes": schemes, "keys": []}
    # The device is opened only if there is one: schemes are of interest before that, too.
    if (shell.state / IDENTITY_FILE).exists():
        with shell.node() as node:
            status = node.status()
            keys = [asdict(key) for key in node.held_keys()]
        document |= {
            "provider": status.provider,
            "assurance": status.assurance.lower(),
            "rollback_protected": status.rollback_protected,
            "keys": keys,
        }

    def people() -> RenderableType:
        from rich.console import Group

        rows = [
            [f"{found['scheme']}:", str(found["from_"]), str(found["state"])] for found in schemes
        ]
        shown: list[RenderableType] = [output.table("provider", "from", "state", rows=rows)]
        if document["keys"]:
            protected = "yes" if document["rollback_protected"] else "no"
            shown += [
                "",
                output.facts(
                    {
                        "provider": document["provider"],
                        "assurance": document["assurance"],
                        "rollback protected": protected,
                    }
                ),
                "",
                output.table(
                    *("key", "algorithm", "custody", "hardware", "evidence"),
                    rows=[
                        [
                            f"{key['key']} {key['use']}",
                            str(key["algorithm"]),
                            str(key["custody"]),
                            "performs"
                            if key["performed"]
                            else "protects"
                            if key["custody"] != "software"
                            else "none",
                            str(key["evidence"]),
                        ]
                        for key in keys
                    ],
                ),
            ]
        return Group(*shown)

    shell.show(document, people)


def try_out(
    shell: Shell,
    uri: Annotated[str, typer.Argument(metavar="URI", help="Such as tpm: or software:.")],
    suite: Annotated[
        list[int] | None,
        typer.Option(parser=checked(suite_id), metavar="N", help="Only this suite; repeatable."),
    ] = None,
) -> None:
    """Tests a provider: keys of every suite, what must fail, what it takes; then removes them."""
    from ..conformance import run

    report = run(uri, shell.passphrase(), suite)
    document = _document(report)

    def people() -> RenderableType:
        from rich.console import Group

        facts = output.facts(
            {
                "provider": report.uri,
                "assurance": report.assurance.lower(),
                "rollback protected": "yes" if report.rollback_protected else "no",
            }
        )
        capabilities = output.table(
            *("does", "with", "custody", "hardware", "time", "evidence"),
            rows=map(_capability, report.capabilities),
        )
        keys = output.table(
            *("suite", "key", "algorithm", "custody"),
            rows=[[str(k.suite), k.use, k.algorithm, k.custody.lower()] for k in report.keys],
        )
        checks = output.table(
            *("check", "result", "found"),
            rows=[[o.check, "ok" if o.passed else "FAILED", o.found] for o in report.outcomes],
        )
        return Group(facts, "", capabilities, "", keys, "", checks)

    shell.show(document, people)
    if not report.passed:
        raise typer.Exit(1)


def quote(
    shell: Shell,
    nonce: Nonce,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to; standard output if left out or -.")
    ] = STDIO,
    force: Annotated[bool, typer.Option("--force", help="Even to a terminal.")] = False,
) -> None:
    """Writes this device's evidence for a verifier: its state, signed inside its hardware."""
    keep_off_terminal(file, force)
    with shell.node() as node:
        evidence = node.quote(nonce)
    with writing(file) as write:
        write(evidence)


def verify(
    shell: Shell,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Evidence; - is standard input.")],
    nonce: Nonce,
) -> None:
    """Verifies another device's evidence; needs no device, no keys and no hardware."""
    evidence, encoded = decode_evidence(read_input(file, MAX_EVIDENCE))
    bundle = parse_bundle(encoded)
    found = verify_quote(evidence, quote_nonce(nonce, bundle.fingerprint))
    device = {
        "name": bundle.name,
        "fingerprint": bundle.fingerprint.hex(),
        "serial": bundle.serial,
        "kind": evidence.kind,
    }
    document = {**device, **found}
    people = {**document, "fingerprint": output.grouped(bundle.fingerprint.hex())}
    shell.show(document, lambda: output.facts(people))
    shell.note("it proves what the attestation key says: compare that key and the fingerprint")


def _document(report: Report) -> dict[str, object]:
    return {
        "uri": report.uri,
        "passed": report.passed,
        "assurance": report.assurance.lower(),
        "rollback_protected": report.rollback_protected,
        "capabilities": [
            {
                "operation": row.operation.value,
                "algorithm": row.algorithm,
                "custody": row.custody.name.lower(),
                "performed": row.performed,
                "assurance": row.assurance.name.lower(),
                "evidence": row.evidence,
                "seconds": row.seconds,
            }
            for row in report.capabilities
        ],
        "keys": [asdict(key) | {"custody": key.custody.lower()} for key in report.keys],
        "checks": [asdict(outcome) for outcome in report.outcomes],
    }


def _capability(row: Capability) -> list[str]:
    of_keys = row.operation not in (Operation.COUNTER, Operation.QUOTE)
    hardware = "performs" if row.performed or not of_keys else "protects"
    return [
        row.operation.value,
        row.algorithm,
        row.custody.name.lower(),
        "none" if row.custody is Custody.SOFTWARE else hardware,
        "" if row.seconds is None else f"{row.seconds * 1000:.2f} ms",
        row.evidence,
    ]
