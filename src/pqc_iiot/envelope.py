"""The envelope: one frame that stands alone.

A `COSE_Encrypt0` with HPKE integrated encryption (draft-ietf-cose-hpke) around a
`COSE_Sign1` (RFC 9052). The outer protected header names suite, recipient, sender and
sequence number, so that a frame can be refused before it costs anything; the signature
covers all of it, both fingerprints, the context and the payload, so that no frame can be
sent again to another recipient, on another topic or as another sender.

    frame = 16([ << {1: alg, 4: recipient kid, -5: sender kid, -6: sequence} >>,
                 {-4: enc}, ciphertext ])
    plaintext = [ h'', {}, payload, signature ]

Its bytes are made and read in the core, in deterministic encoding and no other.
"""

from __future__ import annotations

from functools import lru_cache

from . import _core, cose
from ._core import EnvelopeHeader as Header
from .errors import InvalidFrameError, InvalidInputError
from .identity import OwnKeys
from .keystore import Peer
from .suites import AEAD_TAG_SIZE, SUITES

__all__ = ["MAX_CONTEXT", "MAX_OVERHEAD", "Header", "encode_context", "open_", "parse", "seal"]

MAX_CONTEXT = 65535
"""Bytes of UTF-8; an MQTT topic fits."""
MAX_OVERHEAD = 8192
"""Bytes; more than any suite's frame has beyond its payload."""

_SUITES = {suite.alg: suite for suite in SUITES.values()}


def encode_context(context: str) -> bytes:
    """A context (a topic) as bound into frames: its UTF-8 as an encoded byte string.

    `InvalidInputError` where it is no text or longer than `MAX_CONTEXT`.
    """
    # Long ones are made up by others more often than by us: they are not kept.
    return _encode_kept(context) if len(context) <= 256 else _encode_context(context)


def _encode_context(context: str) -> bytes:
    try:
        encoded = context.encode()
    except UnicodeEncodeError as cause:
        raise InvalidInputError("the context is not valid Unicode") from cause
    if len(encoded) > MAX_CONTEXT:
        raise InvalidInputError(f"the context has more than {MAX_CONTEXT} bytes")
    return cose.bstr(encoded)


_encode_kept = lru_cache(1024)(_encode_context)


def parse(frame: bytes) -> Header:
    """Takes a frame apart. `InvalidFrameError` for anything that is not one; costs about
    a microsecond and allocates no more than the frame's size."""
    header = Header(frame, _SUITES)
    if header.enc_size != header.suite.kem.ciphertext_size:
        raise InvalidFrameError("the frame's encapsulated key has another size than its suite's")
    return header


def payload_size(header: Header, signature_size: int) -> int:
    """Size of the payload in bytes if the frame is genuine and its sender's signatures
    have `signature_size` bytes; -1 if it cannot be."""
    around = len(_core.envelope_plaintext(b"", bytes(signature_size))) - 1 + AEAD_TAG_SIZE
    rest = len(header.ciphertext) - around
    sizes = (rest - 1, rest - 2, rest - 3, rest - 5)
    return next((n for n in sizes if n >= 0 and len(cose.head(2, n)) + n == rest), -1)


def seal(own: OwnKeys, peer: Peer, sequence: int, context: bytes, payload: bytes) -> bytes:
    """Signs with `own` and encrypts to `peer`: the frame. `context` is encoded."""
    sender, bundle = own.bundle, peer.bundle
    protected = _core.envelope_protected(bundle.suite.alg, bundle.kid, sender.kid, sequence)
    signature = own.keys.sign(
        _core.envelope_to_be_signed(
            protected, bundle.fingerprint, sender.fingerprint, context, payload
        )
    )
    enc, ciphertext = peer.kem_key.hpke_seal(
        b"",
        _core.envelope_aad(protected, context),
        _core.envelope_plaintext(payload, signature),
    )
    return _core.envelope_frame(protected, enc, ciphertext)


def open_(header: Header, own: OwnKeys, peer: Peer, context: bytes) -> bytes:
    """Decrypts with `own` and verifies as sent by `peer`: the payload.

    `context` is encoded. `AuthenticationError` for every failure, so that none tells which
    check it was.
    """
    plaintext = own.keys.decrypt(header.enc, b"", header.aad(context), header.ciphertext)
    return header.verify(
        peer.sig_key, own.bundle.fingerprint, peer.bundle.fingerprint, context, plaintext
    )
