"""`inspect`: what a frame or a bundle says of itself, without any key."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from .. import envelope
from ..bundle import parse_bundle
from ..errors import InvalidFrameError, InvalidInputError
from ..policy import MAX_PAYLOAD
from ..session import frames as session_frames
from ..session.frames import Kind
from . import output
from .base import Shell, command
from .files import STDIO, read_input

_FRAME, _BUNDLE = b"\xd0", b"\xd8\x62"
"""How the CBOR tags of a frame (16) and a bundle (98) begin: not as any text does."""
_SESSION = tuple(bytes((kind,)) for kind in Kind)
_Explained: TypeAlias = tuple[str, str | int | None, str]
"""A field's name and value, and what they are worth."""
_LIMIT = 2 * (MAX_PAYLOAD + envelope.MAX_OVERHEAD)


def register(app: typer.Typer) -> None:
    """Adds this command."""
    command(app, "inspect", panel="Messages")(inspect)


def inspect(
    shell: Shell,
    what: Annotated[
        str, typer.Argument(metavar="FRAME", help="A file, - for standard input, or hex or Base64.")
    ],
) -> None:
    """Explains a frame or a bundle without any key: what it says, and what that is worth."""
    data = _decoded(_read(what))
    if data.startswith(_BUNDLE):
        explained = _bundle(data)
    else:
        explained = _frame(data) if data.startswith(_FRAME) else _session(data)
    document = {name: value for name, value, _ in explained}
    rows = [(name.replace("_", " "), str(value), meaning) for name, value, meaning in explained]
    shell.show(document, lambda: output.table("field", "value", "what it means", rows=rows))


def _frame(data: bytes) -> list[_Explained]:
    header = envelope.parse(data)
    suite = header.suite
    size = envelope.payload_size(header, suite.sig.signature_size)
    return [
        ("kind", "frame", "COSE_Encrypt0 (HPKE) around a COSE_Sign1"),
        ("bytes", len(data), "all of it"),
        ("version", 1, "of the envelope"),
        ("suite", suite.id, f"of the recipient's keys: {suite.name}"),
        ("recipient", header.recipient.hex(), "key id; in the clear, signed and authenticated"),
        ("sender", header.sender.hex(), "key id; a claim until the frame is opened"),
        ("sequence", header.sequence, "number from this sender; a claim until opened"),
        ("encapsulated_key_bytes", header.enc_size, f"{suite.kem.name} ciphertext"),
        ("ciphertext_bytes", len(header.ciphertext), "payload, signature and tag; hidden"),
        (
            "payload_bytes",
            size if size >= 0 else None,
            f"if the sender signs with {suite.sig.name}",
        ),
        ("verified", False, "takes the recipient's keys; the context is bound but not carried"),
    ]


def _session(data: bytes) -> list[_Explained]:
    frame = session_frames.parse(data)
    kind = frame.kind
    if kind is Kind.PACKET:
        return [
            ("kind", "packet", "of a session: AES-256-GCM"),
            ("bytes", len(data), "all of it"),
            ("session", frame.who.hex(), "as its receiver chose it; a claim until opened"),
            ("number", session_frames.packet_number(data), "a claim until opened"),
            ("payload_bytes", len(data) - session_frames.OVERHEAD, "hidden"),
            ("verified", False, "takes the session's keys; the topic is bound but not carried"),
        ]
    if kind is Kind.MESSAGE_1:
        who = ("sender", frame.who.hex(), "key id; a claim until message 3")
    else:
        who = ("session", frame.who.hex(), "as its receiver chose it in this handshake")
    return [
        ("kind", kind.name.lower(), "of a session's handshake (EDHOC, RFC 9528, method 0)"),
        ("bytes", len(data), "all of it"),
        who,
        ("message_bytes", len(frame.message), "the EDHOC message"),
        ("verified", False, "takes part in the handshake"),
    ]


def _bundle(data: bytes) -> list[_Explained]:
    bundle = parse_bundle(data)
    suite = bundle.suite
    previous = bundle.previous.hex() if bundle.previous else None
    return [
        ("kind", "bundle", "COSE_Sign over a CWT Claims Set with both public keys"),
        ("bytes", len(data), "all of it"),
        ("name", bundle.name, "as the device calls itself"),
        ("suite", suite.id, suite.name),
        ("serial", bundle.serial, "1 for the first keys, more after each rotation"),
        ("fingerprint", bundle.fingerprint.hex(), "compare it with what the device shows"),
        ("key_id", bundle.kid.hex(), "stands for these keys in frames"),
        ("kem_public_key_bytes", len(bundle.kem_public_key), suite.kem.name),
        ("sig_public_key_bytes", len(bundle.sig_public_key), suite.sig.name),
        ("previous", previous, "fingerprint of the keys that signed these too, after a rotation"),
        ("verified", True, "by its own keys, which says nothing about who holds them"),
    ]


def _read(what: str) -> bytes:
    path = Path(what)
    try:
        if path == STDIO or path.exists():
            return read_input(path, _LIMIT)
    except OSError:  # too long for a name: the text itself
        pass
    if len(what) > 64:
        return what.encode(errors="replace")
    raise InvalidInputError(
        f"there is no file {what}", hint="give a file, - for standard input, or hex or Base64"
    )


def _decoded(data: bytes) -> bytes:
    """The bytes themselves, or what they say in hexadecimal or Base64 (RFC 4648)."""
    if _is_known(data):
        return data
    text = b"".join(data.split())
    for decode in (binascii.unhexlify, _base64):
        try:
            decoded = decode(text)
        except (binascii.Error, ValueError):
            continue
        if _is_known(decoded):
            return decoded
    raise InvalidFrameError("this is neither a frame nor a bundle, as it is or in hex or Base64")


def _is_known(data: bytes) -> bool:
    """By how it begins: no text begins like any of them."""
    return data.startswith((_FRAME, _BUNDLE)) or data[:1] in _SESSION


def _base64(text: bytes) -> bytes:
    text = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
