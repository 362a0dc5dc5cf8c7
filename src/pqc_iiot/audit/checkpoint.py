"""Checkpoints: what a device signs about its log's tree, and what witnesses countersign.

A checkpoint is a signed note as C2SP has it (c2sp.org/tlog-checkpoint, signed-note):

    pqc-iiot/press-4/0f…the log's id…a7
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — pqc-iiot/press-4/0f…a7 <key id and signature, base64>
    — pqc-iiot/plc-7 <key id, time and cosignature, base64>

The first signature is the device's, over the text in front of the empty line, under the
origin as key name. The others are cosignatures of witnesses (c2sp.org/tlog-cosignature),
over its `cosigned_message`, which names the witness. Our signatures have no type of
their own there, so key ids are made under type 0xff with a longer identifier:

    SHA-256(key name || 0x0a || 0xff || identifier || public key)[:4]

where the identifier is `pqc-iiot/checkpoint/v1 ALG` or `pqc-iiot/cosignature/v1 ALG` and a
line end, ALG the COSE number of the signature algorithm.
"""

from __future__ import annotations

import re
import struct
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, TypeAlias

from .._core import SigPublicKey
from ..errors import AuthenticationError, InvalidFrameError
from .merkle import HASH_SIZE

MAX_CHECKPOINT: Final = 256 * 1024
"""Bytes of a checkpoint at most, with its signatures."""

_CHECKPOINT: Final = "pqc-iiot/checkpoint/v1"
_COSIGNATURE: Final = "pqc-iiot/cosignature/v1"
_LABEL: Final = b"subtree/v1\n\0"
_MAX_SIGNATURES: Final = 64
_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})").fullmatch
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}").fullmatch
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]").search


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A device's public signature key: the device's name, a COSE number, and the key."""

    device: str
    algorithm: int
    public_key: bytes

    def key_id(self, name: str, kind: str = _CHECKPOINT) -> bytes:
        """The 4 bytes that stand for this key in a signature line under a key name."""
        identifier = f"{kind} {self.algorithm}\n".encode()
        return sha256(name.encode() + b"\n\xff" + identifier + self.public_key).digest()[:4]

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether this key signed `message`."""
        return SigPublicKey(self.algorithm, self.public_key).verify(message, signature)


@dataclass(frozen=True, slots=True)
class Signer:
    """How to sign with a device's key, without knowing where the key lives."""

    key: NoteKey
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A cosignature that verifies: by whom, and at what time (seconds since 1970)."""

    key: NoteKey
    time: int


Line: TypeAlias = tuple[str, bytes]
"""A signature line: key name, and key id (4 bytes) and signature."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tree of a log at one size: `root` has 32 bytes. Nothing of it is verified.

    `extensions` are further lines of the text; none are written here.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Checkpoint:
        """Reads one checkpoint with its signatures; `InvalidFrameError` for anything else."""
        try:
            if len(data) > MAX_CHECKPOINT:
                raise ValueError
            text, _, lines = data.decode().rpartition("\n\n")
            origin, size, root, *extensions = text.split("\n")
            checkpoint = cls(
                origin,
                int(size) if _SIZE(size) else -1,
                b64decode(root, validate=True),
                tuple(extensions),
                tuple(_parse_line(line) for line in lines.splitlines()),
            )
        except ValueError as cause:
            raise InvalidFrameError("these bytes are no checkpoint") from cause
        if (
            checkpoint.encode() != data
            or not 0 <= checkpoint.size < 1 << 63
            or len(checkpoint.root) != HASH_SIZE
            or not 1 <= len(origin.encode()) <= 255
            or not 1 <= len(checkpoint.lines) <= _MAX_SIGNATURES
            or not all(extensions)
            or _CONTROL(data.decode())
        ):
            raise InvalidFrameError("these bytes are no checkpoint")
        return checkpoint

    @property
    def text(self) -> bytes:
        """What the device signs."""
        lines = (self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions)
        return "".join(f"{line}\n" for line in lines).encode()

    def encode(self) -> bytes:
        """The signed note."""
        lines = [f"— {name} {b64encode(value).decode()}\n" for name, value in self.lines]
        return self.text + b"\n" + "".join(lines).encode()

    def signed(self, signer: Signer) -> Checkpoint:
        """The same, signed by the device whose log it is."""
        line = (self.origin, signer.key.key_id(self.origin) + signer.sign(self.text))
        return replace(self, lines=(line, *self.lines))

    def cosigned(self, signer: Signer) -> Checkpoint:
        """The same, with a witness's cosignature. The caller has checked what it states."""
        name, now = _cosigner(signer.key), int(time.time())
        signature = signer.sign(self._cosigned_message(name, now))
        key_id = signer.key.key_id(name, _COSIGNATURE)
        return self.merged([(name, key_id + now.to_bytes(8, "big") + signature)])

    def merged(self, lines: Iterable[Line]) -> Checkpoint:
        """The same with further signature lines; one of the same key takes its old one's
        place."""
        kept = {(name, value[:4]): (name, value) for name, value in self.lines}
        kept.update({(name, value[:4]): (name, value) for name, value in lines})
        return replace(self, lines=tuple(kept.values()))

    def only(self, signer: NoteKey, cosigner: NoteKey) -> Checkpoint:
        """The same with the signatures of these two alone."""
        wanted = {
            (self.origin, signer.key_id(self.origin)),
            (_cosigner(cosigner), cosigner.key_id(_cosigner(cosigner), _COSIGNATURE)),
        }
        kept = tuple(line for line in self.lines if (line[0], line[1][:4]) in wanted)
        return replace(self, lines=kept)

    def signed_by(self, keys: Iterable[NoteKey]) -> NoteKey | None:
        """The key among `keys` that signed it for its log, or None.

        A key signs for logs of its device only: the origin names it. `AuthenticationError`
        where a signature is said to be one of these keys' and is not.
        """
        for key in keys:
            if not is_origin(self.origin, key.device):
                continue
            key_id = key.key_id(self.origin)
            for name, value in self.lines:
                if (name, value[:4]) == (self.origin, key_id):
                    _require(key.verifies(self.text, value[4:]))
                    return key
        return None

    def cosigned_by(self, keys: Iterable[NoteKey]) -> list[Cosigned]:
        """The cosignatures by `keys`. `AuthenticationError` as for `signed_by`."""
        found = []
        for key in keys:
            cosigner = _cosigner(key)
            key_id = key.key_id(cosigner, _COSIGNATURE)
            for name, value in self.lines:
                if (name, value[:4]) == (cosigner, key_id):
                    when = int.from_bytes(value[4:12], "big")
                    _require(key.verifies(self._cosigned_message(name, when), value[12:]))
                    found.append(Cosigned(key, when))
        return found

    def _cosigned_message(self, cosigner: str, when: int) -> bytes:
        name, origin = cosigner.encode(), self.origin.encode()
        return b"".join(
            (
                _LABEL,
                struct.pack(f">B{len(name)}sQ", len(name), name, when),
                struct.pack(f">B{len(origin)}sQQ", len(origin), origin, 0, self.size),
                self.root,
            )
        )


def make_origin(device: str, log: str) -> str:
    """What checkpoints of this device's log are called; `log` is its id, 32 hex digits."""
    return f"pqc-iiot/{device}/{log}"


def is_origin(origin: str, device: str) -> bool:
    """Whether this is the origin of a log of `device`."""
    return re.fullmatch(r"[0-9a-f]{32}", origin.removeprefix(f"pqc-iiot/{device}/")) is not None


def _cosigner(key: NoteKey) -> str:
    return f"pqc-iiot/{key.device}"


def _parse_line(line: str) -> Line:
    match = _LINE(line)
    if match is None:
        raise ValueError
    value = b64decode(match[2], validate=True)
    if len(value) <= 4:
        raise ValueError
    return match[1], value


def _require(verified: bool) -> None:
    if not verified:
        raise AuthenticationError("a signature of the checkpoint does not verify")
