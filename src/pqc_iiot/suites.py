"""The one table of algorithms: a suite is a row, and adding one adds a row.

Identifiers are the standards' own: KEMs by HPKE (draft-ietf-hpke-pq), signatures by COSE
(RFC 9964 for ML-DSA). Where none is assigned yet, numbers are from the private-use range
of IANA's COSE registries (below -65536).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .errors import PolicyError

AEAD_TAG_SIZE = 16
"""Bytes that AES-256-GCM adds to its plaintext."""


@dataclass(frozen=True, slots=True)
class Kem:
    """A key encapsulation mechanism; sizes in bytes."""

    id: int
    name: str
    public_key_size: int
    ciphertext_size: int


@dataclass(frozen=True, slots=True)
class Sig:
    """A signature algorithm; sizes in bytes."""

    id: int
    name: str
    public_key_size: int
    signature_size: int


@dataclass(frozen=True, slots=True)
class Suite:
    """A KEM, a signature and AES-256-GCM, and the COSE number of their envelope."""

    id: int
    kem: Kem
    sig: Sig
    purpose: str

    @property
    def alg(self) -> int:
        """COSE algorithm number of envelopes and KEM keys of this suite (private use)."""
        return ENVELOPE_ALG_BASE - self.id

    @property
    def edhoc(self) -> int:
        """EDHOC cipher suite of sessions with a device of this suite (private use)."""
        return EDHOC_SUITE_BASE - self.id

    @property
    def name(self) -> str:
        """What the suite is made of."""
        return f"{self.kem.name} + {self.sig.name} + AES-256-GCM"


ENVELOPE_ALG_BASE = -65792
"""Version 1 of the envelope; suite N is -65792 - N. A new version takes another base."""

EDHOC_SUITE_BASE = -23
"""Suite N is EDHOC cipher suite -23 - N, with SHA-384 and AES-256-GCM in every one."""

ML_KEM_768 = Kem(0x0041, "ML-KEM-768", 1184, 1088)
ML_KEM_1024 = Kem(0x0042, "ML-KEM-1024", 1568, 1568)
ML_KEM_768_P256 = Kem(0x0050, "MLKEM768-P256", 1249, 1153)
ML_KEM_1024_P384 = Kem(0x0051, "MLKEM1024-P384", 1665, 1665)
ML_KEM_768_X25519 = Kem(0x647A, "MLKEM768-X25519", 1216, 1120)

FALCON_512 = Sig(-65601, "Falcon-512", 897, 666)
FALCON_1024 = Sig(-65602, "Falcon-1024", 1793, 1280)
FALCON_512_ECDSA_P256 = Sig(-65603, "Falcon-512 and ECDSA-P256", 962, 730)
ML_DSA_65 = Sig(-49, "ML-DSA-65", 1952, 3309)
ML_DSA_87 = Sig(-50, "ML-DSA-87", 2592, 4627)

SUITES: Mapping[int, Suite] = MappingProxyType(
    {
        suite.id: suite
        for suite in (
            Suite(1, ML_KEM_768_X25519, FALCON_512, "default"),
            Suite(2, ML_KEM_1024_P384, FALCON_1024, "long-lived secrets"),
            Suite(3, ML_KEM_768, FALCON_512, "smallest handshake, no classical half"),
            Suite(4, ML_KEM_1024, FALCON_512, "no classical half, level 5 KEM"),
            Suite(5, ML_KEM_1024, ML_DSA_87, "CNSA 2.0"),
            Suite(6, ML_KEM_768_P256, FALCON_512_ECDSA_P256, "classical halves in a TPM or HSM"),
            Suite(7, ML_KEM_768, ML_DSA_65, "private operations inside a PKCS#11 token"),
        )
    }
)
"""Every suite by its one-byte identifier."""

DEFAULT_SUITE = 1

SUITE_POLICIES: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        "all": frozenset(SUITES),
        "hybrid": frozenset({1, 2, 6}),
        "cnsa2": frozenset({5}),
    }
)
"""Named sets of suites that a node may restrict itself and its peers to."""


def get_suite(suite_id: int) -> Suite:
    """The suite with this identifier; `PolicyError` where there is none."""
    try:
        return SUITES[suite_id]
    except KeyError:
        known = ", ".join(map(str, SUITES))
        raise PolicyError(
            f"suite {suite_id} is not known here", hint=f"known suites: {known}"
        ) from None
