"""A device of tests: a folder beside the state holds what would never leave real hardware.

`emulated:FOLDER` has ECDH and ECDSA P-256 keys, a counter, and a list of the calls it got. It
can be told to fail. Everything above a device is the real thing.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature

from mlkem768_p256 import CURVE, point_of
from pqc_iiot._core import Secret, ecdsa_verify
from pqc_iiot.errors import (
    AuthenticationError,
    IntegrityFailedError,
    KeyNotFoundError,
    UnavailableError,
)
from pqc_iiot.providers import (
    Assurance,
    Capability,
    Counter,
    Custody,
    Evidence,
    Operation,
    ProviderRequest,
)
from pqc_iiot.providers.evidence import VERIFIERS
from pqc_iiot.providers.registry import SCHEMES
from pqc_iiot.providers.sealed import KekProvider, memory_capabilities, references
from pqc_iiot.suites import FALCON_512_ECDSA_P256, ML_KEM_768_P256, Suite

SCHEME = "emulated"


class Device:
    """What survives a restart; `failures` are raised by the next calls of these names."""

    failures: dict[str, list[Exception]] = {}  # noqa: RUF012 - of this process's tests
    calls: list[str] = []  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder

    def called(self, name: str) -> None:
        self.calls.append(name)
        if waiting := self.failures.get(name):
            raise waiting.pop(0)

    def new_key(self) -> bytes:
        name = os.urandom(8)
        scalar = ec.generate_private_key(CURVE).private_numbers().private_value
        (self.folder / name.hex()).write_text(str(scalar))
        return name

    def key(self, name: bytes) -> ec.EllipticCurvePrivateKey:
        try:
            scalar = int((self.folder / name.hex()).read_text())
        except FileNotFoundError:
            raise KeyNotFoundError("the key is not in the device any more") from None
        return ec.derive_private_key(scalar, CURVE)


class Half:
    """One of its keys."""

    def __init__(self, device: Device, name: bytes) -> None:
        self._device, self._key = device, device.key(name)

    @property
    def public_key(self) -> bytes:
        return point_of(self._key)

    def agree(self, point: bytes) -> Secret:
        self._device.called("agree")
        there = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, point)
        return Secret.take(bytearray(self._key.exchange(ec.ECDH(), there)))

    def sign_digest(self, digest: bytes) -> bytes:
        self._device.called("sign")
        made = self._key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        r, s = decode_dss_signature(made)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class FileCounter(Counter):
    rollback_protected = True

    def __init__(self, device: Device) -> None:
        self._device, self._file = device, device.folder / "counter"
        if not self._file.exists():
            self.write(os.urandom(8).hex(), 7)

    def write(self, name: str, value: int) -> None:
        self._file.write_text(json.dumps([name, value]))

    @property
    def name(self) -> bytes:
        return bytes.fromhex(json.loads(self._file.read_text())[0])

    def value(self) -> int:
        self._device.called("value")
        return int(json.loads(self._file.read_text())[1])

    def increment(self) -> int:
        self._device.called("increment")
        name, value = json.loads(self._file.read_text())
        self.write(name, value + 1)
        self._device.called("incremented")
        return int(value) + 1


class EmulatedProvider(KekProvider):
    scheme = SCHEME
    custody = Custody.SEALED
    assurance = Assurance.EMULATOR

    def __init__(self, request: ProviderRequest) -> None:
        if not request.path:
            raise UnavailableError("there is no device", hint="name a folder", native="0xa000a")
        self.device = Device(Path(request.path))
        self._header = request.header or os.urandom(8)
        kept = self.device.folder / f"kek-{self._header.hex()}"
        if request.header is None:
            kept.write_bytes(os.urandom(32))
        elif not kept.exists():
            raise IntegrityFailedError("these are another device's", native="0x1df")
        self.device.called("unseal")
        super().__init__(Secret.take(bytearray(kept.read_bytes())))

    @property
    def header(self) -> bytes:
        return self._header

    def capabilities(self) -> tuple[Capability, ...]:
        split = (
            (Operation.DECRYPT, ML_KEM_768_P256.name),
            (Operation.SIGN, FALCON_512_ECDSA_P256.name),
        )
        return (
            *memory_capabilities(self.custody, "sealed by the emulation", self.assurance),
            *(Capability(*each, Custody.SPLIT, "its halves stay in the folder") for each in split),
            Capability(Operation.COUNTER, "file", Custody.NATIVE, "counted"),
            Capability(Operation.QUOTE, "ECDSA-P256", Custody.NATIVE, "quoted"),
        )

    def make_ecdh(self) -> tuple[Half, bytes]:
        name = self.device.new_key()
        return Half(self.device, name), name

    def load_ecdh(self, reference: bytes) -> Half:
        return Half(self.device, reference)

    make_ecdsa, load_ecdsa = make_ecdh, load_ecdh

    def discard(self, suite: Suite, blob: bytes) -> None:
        for name in references(blob):
            if name is not None:
                (self.device.folder / name.hex()).unlink(missing_ok=True)

    def counter(self) -> FileCounter:
        self._key()
        return FileCounter(self.device)

    def quote(self, nonce: bytes) -> Evidence | None:
        half = Half(self.device, self._attestation())
        statement = b"emulated" + nonce
        signature = half.sign_digest(hashlib.sha256(statement).digest())
        return Evidence("emulated", half.public_key, statement, signature, (("note", b"none"),))

    def _attestation(self) -> bytes:
        name = self.device.folder / "attestation"
        if not name.exists():
            name.write_bytes(self.device.new_key())
        return name.read_bytes()

    def erase(self) -> None:
        (self.device.folder / f"kek-{self._header.hex()}").unlink(missing_ok=True)


def verify(evidence: Evidence, nonce: bytes) -> dict[str, str]:
    """Verifies a quote of this device."""
    genuine = ecdsa_verify(evidence.key, evidence.statement, evidence.signature)
    if not genuine or evidence.statement != b"emulated" + nonce:
        raise AuthenticationError("the quote is not genuine")
    return {"state": "as it was"}


def fail_next(call: str, error: Exception | None = None) -> None:
    """Lets the next `call` of any device fail."""
    error = error or UnavailableError("the device is gone", native="0xa000a")
    Device.failures.setdefault(call, []).append(error)


SCHEMES.setdefault(SCHEME, EmulatedProvider)
VERIFIERS.setdefault("emulated", f"{__name__}:verify")
