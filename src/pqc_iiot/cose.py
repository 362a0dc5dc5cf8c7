"""CBOR and COSE encoding (RFC 8949, RFC 9052), deterministic and strict.

Everything this project writes is in core deterministic encoding (RFC 8949 section 4.2.1),
and nothing else is accepted, so that one meaning has one encoding. What depends on a key
or on trust is not here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

import cbor2

from .errors import InvalidFrameError, PqcIiotError

# COSE header parameters (RFC 9052 section 3.1) and those of our own algorithms, which
# live in the range that COSE leaves to the algorithm (-65536 to -1).
ALG, KID = 1, 4
EK = -4  # draft-ietf-cose-hpke
SENDER_KID, SEQUENCE = -5, -6

# COSE_Key parameters (RFC 9052 section 7, RFC 9964 for kty AKP).
KTY, KEY_ALG, AKP_PUB = 1, 3, -1
KTY_AKP = 7

TAG_SIGN = b"\xd8\x62"
"""Tag 98 of a `COSE_Sign`, encoded: it stands in front of what `loads` decodes."""
TAG_SIGN1 = b"\xd2"
"""Tag 18 of a `COSE_Sign1`."""

_PLAIN = frozenset((int, bytes, str))
_BYTES = [bytes((value,)) for value in range(256)]
_HEAD_1, _HEAD_2, _HEAD_4, _HEAD_8 = (struct.Struct(f).pack for f in (">BB", ">BH", ">BI", ">BQ"))


class _NoTags(dict[int, Callable[[object, bool], object]]):
    """Refuses every tag: the decoder would build dates, patterns and decimals from them."""

    def __missing__(self, tag: int) -> Callable[[object, bool], object]:
        raise ValueError("a tag where none belongs")


def head(major: int, value: int) -> bytes:
    """An initial byte and its argument in the shortest form (RFC 8949 section 3)."""
    major <<= 5
    if value < 24:
        return _BYTES[major | value]
    if value < 0x100:
        return _HEAD_1(major | 24, value)
    if value < 0x10000:
        return _HEAD_2(major | 25, value)
    if value < 0x100000000:
        return _HEAD_4(major | 26, value)
    return _HEAD_8(major | 27, value)


def bstr(value: bytes) -> bytes:
    """A byte string, encoded."""
    return head(2, len(value)) + value


def dumps(value: object) -> bytes:
    """`value` in deterministic encoding."""
    return cbor2.dumps(value, canonical=True)


def loads(
    data: bytes, limit: int, what: str, error: type[PqcIiotError] = InvalidFrameError
) -> object:
    """Decodes outside bytes: at most `limit` of them, shallow, deterministic, complete.

    Only integers, strings, arrays (as tuples) and maps (as read-only mappings) are known:
    no tags, and nothing that equals another value, as 1.0 and True equal 1.
    Raises `error`, naming `what`, for anything else.
    """
    if len(data) > limit:
        raise error(f"{what} is longer than {limit} bytes")
    try:
        value: object = cbor2.loads(
            data,
            max_depth=8,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            immutable=True,
            semantic_decoders=_NoTags(),
        )
        again = dumps(value)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as cause:
        raise error(f"{what} is not CBOR as this protocol uses it") from cause
    if again != data or not _is_plain(value):
        raise error(f"{what} is not in deterministic CBOR encoding")
    return value


def _is_plain(value: object) -> bool:
    if type(value) in _PLAIN:  # first, since most values are
        return True
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.keys())) and all(map(_is_plain, value.values()))
    return False


def akp_key(alg: int, public_key: bytes) -> dict[int, int | bytes]:
    """A COSE_Key of type AKP: its algorithm and public key, nothing else."""
    return {KTY: KTY_AKP, KEY_ALG: alg, AKP_PUB: public_key}
