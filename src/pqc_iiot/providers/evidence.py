"""Evidence as bytes, and its verification: on any machine, without the device's libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from importlib import import_module

from .. import cose
from ..errors import AuthenticationError, InvalidInputError
from .base import Evidence

MAX_EVIDENCE = 65536
_VERSION = 1

Verifier = Callable[[Evidence, bytes], Mapping[str, str]]

VERIFIERS: dict[str, str] = {"tpm2": "pqc_iiot.providers.tpm_quote:verify"}
"""What verifies a kind of evidence, as `module:function`; a program may add its own. It gets
evidence and nonce, returns facts to show, and raises `AuthenticationError`."""


def quote_nonce(nonce: bytes, fingerprint: bytes) -> bytes:
    """What a device puts into its quote for a verifier's `nonce`: SHA-256 over a domain
    string, the nonce's length and bytes, and the fingerprint of its key set (32 bytes). So a
    quote answers one question, about one device."""
    size = len(nonce).to_bytes(2, "big")
    return hashlib.sha256(b"pqc-iiot quote v1" + size + nonce + fingerprint).digest()


def verify_quote(evidence: Evidence, nonce: bytes) -> Mapping[str, str]:
    """What genuine evidence over `nonce` (32 bytes) says, as facts to show.

    `AuthenticationError` where it is not genuine or answers another nonce,
    `InvalidInputError` for a kind that nothing here verifies.
    """
    target = VERIFIERS.get(evidence.kind)
    if target is None:
        known = ", ".join(VERIFIERS)
        raise InvalidInputError(
            f"nothing here verifies evidence of kind {evidence.kind[:40]!r}", hint=f"known: {known}"
        )
    module, _, name = target.partition(":")
    verify: Verifier = getattr(import_module(module), name)
    return verify(evidence, nonce)


def encode_evidence(evidence: Evidence, bundle: bytes) -> bytes:
    """A file for another machine: the evidence and the encoded bundle of the device."""
    more = [list(part) for part in evidence.more]
    value = [_VERSION, bundle, evidence.kind, evidence.key]
    return cose.dumps([*value, evidence.statement, evidence.signature, more])


def decode_evidence(data: bytes) -> tuple[Evidence, bytes]:
    """Undoes `encode_evidence`: nothing of it is verified. `AuthenticationError` for
    anything else."""
    match cose.loads(data, MAX_EVIDENCE, "the evidence", AuthenticationError):
        case [
            1,
            bytes(bundle),
            str(kind),
            bytes(key),
            bytes(statement),
            bytes(signature),
            more,
        ] if isinstance(more, list | tuple):
            parts = tuple(part for part in map(_part, more))
            return Evidence(kind, key, statement, signature, parts), bundle
    raise AuthenticationError("these bytes are no evidence")


def _part(value: object) -> tuple[str, bytes]:
    match value:
        case [str(name), bytes(content)]:
            return name, content
    raise AuthenticationError("these bytes are no evidence")
