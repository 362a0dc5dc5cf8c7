"""The envelope: one frame that stands alone.

A `COSE_Encrypt0` with HPKE integrated encryption (draft-ietf-cose-hpke) around a
`COSE_Sign1` (RFC 9052). The outer protected header names suite, recipient, sender and
sequence number, so that a frame can be refused before it costs anything; the signature
covers all of it, both fingerprints, the context and the payload, so that no frame can be
sent again to another recipient, on another topic or as another sender.

    frame = 16([ << {1: alg, 4: recipient kid, -5: sender kid, -6: sequence} >>,
                 {-4: enc}, ciphertext ])
    plaintext = [ h'', {}, payload, signature ]

Only the deterministic encoding is accepted: a frame is one exactly if encoding its parts
gives it again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from . import cose
from .errors import AuthenticationError, InvalidFrameError, InvalidInputError
from .identity import OwnKeys
from .keystore import Peer
from .suites import AEAD_TAG_SIZE, ENVELOPE_ALG_BASE, SUITES, Suite

KID_SIZE = 8
MAX_CONTEXT = 65535
"""Bytes of UTF-8; an MQTT topic fits."""
MAX_OVERHEAD = 8192
"""Bytes; more than any suite's frame has beyond its payload."""

_DOMAIN = b"\x74pqc-iiot envelope v1"
_INNER_START = b"\x84\x40\xa0"  # [ h'', {}, …

# Found by pattern and not by a CBOR decoder: attackers choose these bytes, and a decoder
# knows many more things than a frame may hold.
_START = re.compile(
    rb"\xd0\x83(?P<protected>\x58.(?P<fields>\xa4\x01\x3a(?P<alg>....)\x04\x48(?P<recipient>.{8})"
    rb"\x24\x48(?P<sender>.{8})\x25(?P<sequence>[\x01-\x17]|\x18.|\x19..|\x1a.{4}|\x1b.{8})))"
    rb"\xa1\x23\x59(?P<enc_size>..)",
    re.DOTALL,
)
_LENGTH = re.compile(rb"[\x40-\x57]|\x58.|\x59..|\x5a.{4}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Header:
    """What a frame says of itself in the clear; nothing of it is verified yet.

    `suite` is the recipient's. Key ids are 8 bytes; `protected` is the header that
    everything is bound to, encoded, as the byte string that stands in the frame.
    """

    suite: Suite
    recipient: bytes
    sender: bytes
    sequence: int
    protected: bytes
    enc: bytes
    ciphertext: bytes

    def payload_size(self, signature_size: int) -> int:
        """Size of the payload in bytes if the frame is genuine; -1 if it cannot be."""
        signature = len(cose.head(2, signature_size)) + signature_size
        rest = len(self.ciphertext) - AEAD_TAG_SIZE - len(_INNER_START) - signature
        for length in (rest - 1, rest - 2, rest - 3, rest - 5):
            if length >= 0 and len(cose.head(2, length)) + length == rest:
                return length
        return -1


def _protected(suite: Suite, recipient: bytes, sender: bytes, sequence: int) -> bytes:
    """The protected header: a map with four entries, as a byte string."""
    alg, number = cose.head(1, -1 - suite.alg), cose.head(0, sequence)
    fields = (b"\xa4\x01", alg, b"\x04\x48", recipient, b"\x24\x48", sender, b"\x25", number)
    return cose.bstr(b"".join(fields))


def _hpke_aad(protected: bytes, context: bytes) -> bytes:
    """Enc_structure of RFC 9052 section 5.3; the context is its external_aad."""
    return b"\x83\x68Encrypt0" + protected + context


def _to_be_signed(
    protected: bytes, recipient: bytes, sender: bytes, context: bytes, payload: bytes
) -> bytes:
    """Sig_structure of RFC 9052 section 4.4 over an encoded payload. The outer header,
    both fingerprints and the context are its external_aad, under a name of our own."""
    external = b"\x85%b%b\x58\x20%b\x58\x20%b%b" % (
        _DOMAIN,
        protected,
        recipient,
        sender,
        context,
    )
    return b"\x84\x6aSignature1\x40%b%b" % (cose.bstr(external), payload)


@lru_cache(1024)
def encode_context(context: str) -> bytes:
    """A context (a topic) as bound into frames: its UTF-8 as an encoded byte string.

    `InvalidInputError` where it is no text or longer than `MAX_CONTEXT`.
    """
    try:
        encoded = context.encode()
    except UnicodeEncodeError as cause:
        raise InvalidInputError("the context is not valid Unicode") from cause
    if len(encoded) > MAX_CONTEXT:
        raise InvalidInputError(f"the context has more than {MAX_CONTEXT} bytes")
    return cose.bstr(encoded)


def parse(frame: bytes) -> Header:
    """Takes a frame apart. `InvalidFrameError` for anything that is not one; costs
    microseconds and allocates no more than the frame's size."""
    found = _START.match(frame)
    if found is None:
        raise InvalidFrameError("these bytes are not a frame of this protocol")
    protected, fields, alg, recipient, sender, number, enc_size = found.groups()
    suite = SUITES.get(ENVELOPE_ALG_BASE + 1 + int.from_bytes(alg, "big"))
    if suite is None:
        raise InvalidFrameError(
            "the frame has a version or suite that is not known here",
            hint="a newer program may have sent it",
        )
    sequence = int.from_bytes(number[1:] or number, "big")
    if not 1 <= sequence < 1 << 62:
        raise InvalidFrameError("the frame's sequence number is out of range")
    if int.from_bytes(enc_size, "big") != suite.kem.ciphertext_size:
        raise InvalidFrameError("the frame's encapsulated key has another size than its suite's")
    end = found.end() + suite.kem.ciphertext_size
    length = _LENGTH.match(frame, end)
    start = length.end() if length else len(frame)
    # The pattern leaves open how numbers are encoded: only the shortest form, and a
    # ciphertext that ends where the frame does.
    if (
        protected[1] != len(fields)
        or number != cose.head(0, sequence)
        or frame[end:start] != cose.head(2, len(frame) - start)
    ):
        raise InvalidFrameError("the frame is not in deterministic encoding")
    return Header(
        suite, recipient, sender, sequence, protected, frame[found.end() : end], frame[start:]
    )


def seal(own: OwnKeys, peer: Peer, sequence: int, context: bytes, payload: bytes) -> bytes:
    """Signs with `own` and encrypts to `peer`: the frame. `context` is encoded."""
    bundle = peer.bundle
    sender, recipient = own.bundle.fingerprint, bundle.fingerprint
    protected = _protected(bundle.suite, bundle.kid, own.bundle.kid, sequence)
    encoded = cose.bstr(payload)
    signature = own.keys.sign(_to_be_signed(protected, recipient, sender, context, encoded))
    enc, ciphertext = peer.kem_key.hpke_seal(
        b"", _hpke_aad(protected, context), _INNER_START + encoded + cose.bstr(signature)
    )
    return b"\xd0\x83%b\xa1\x23%b%b" % (protected, cose.bstr(enc), cose.bstr(ciphertext))


def open_(header: Header, own: OwnKeys, peer: Peer, context: bytes) -> bytes:
    """Decrypts with `own` and verifies as sent by `peer`: the payload.

    `context` is encoded. `AuthenticationError` for every failure, so that none tells which
    check it was.
    """
    plaintext = own.keys.decrypt(
        header.enc, b"", _hpke_aad(header.protected, context), header.ciphertext
    )
    signature_size = peer.bundle.suite.sig.signature_size
    size = header.payload_size(signature_size)
    payload_head, signature_head = cose.head(2, max(size, 0)), cose.head(2, signature_size)
    start = len(_INNER_START) + len(payload_head)
    end = start + size
    signature = plaintext[-signature_size:]
    signed = _to_be_signed(
        header.protected,
        own.bundle.fingerprint,
        peer.bundle.fingerprint,
        context,
        plaintext[len(_INNER_START) : end],
    )
    if (
        size < 0
        or plaintext[:start] != _INNER_START + payload_head
        or plaintext[end:-signature_size] != signature_head
        or not peer.sig_key.verify(signed, signature)
    ):
        raise AuthenticationError("authentication failed", peer=peer.fingerprint.hex())
    return plaintext[start:end]
