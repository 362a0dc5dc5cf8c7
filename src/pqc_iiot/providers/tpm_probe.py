"""What a TPM can do, found by letting it do it, and by trying to take keys out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

from tpm2_pytss.constants import TPM2_CAP, TPM2_CC

from .._core import ecdsa_verify
from ..errors import CustodyTooLowError, ProviderError
from ..suites import FALCON_512_ECDSA_P256, ML_KEM_768_P256
from .base import Assurance, Capability, Custody, Operation
from .sealed import memory_capabilities
from .tpm_device import Device
from .tpm_keys import KeyMaker, TpmKey

COUNTER_NAME = "TPM NV counter"
QUOTE_NAME = "TPM quote of PCRs"

_MESSAGE = b"pqc-iiot probe"


def probe(
    device: Device,
    keys: KeyMaker,
    try_without_policy: Callable[[], None],
    assurance: Assurance,
) -> tuple[Capability, ...]:
    """Every capability with its evidence. `CustodyTooLowError` where a key came out."""
    refused = _refusal(try_without_policy)
    sealed = memory_capabilities(
        Custody.SEALED, f"key sealed by the TPM; unsealing without its policy: {refused}", assurance
    )
    made: list[Capability] = []
    ecdsa = keys.ecdsa()
    digest = hashlib.sha256(_MESSAGE).digest()
    signature, seconds = _timed(lambda: ecdsa.sign_digest(digest))
    if ecdsa_verify(ecdsa.public_key, _MESSAGE, signature):
        made.append(
            Capability(
                Operation.SIGN,
                FALCON_512_ECDSA_P256.name,
                Custody.SPLIT,
                f"ECDSA half: {_kept(ecdsa)}",
                assurance,
                seconds,
            )
        )
    ecdh = keys.ecdh()
    _, seconds = _timed(lambda: ecdh.agree(ecdsa.public_key))
    made.append(
        Capability(
            Operation.DECRYPT,
            ML_KEM_768_P256.name,
            Custody.SPLIT,
            f"ECDH half: {_kept(ecdh)}",
            assurance,
            seconds,
        )
    )
    commands = device.run("asking for its commands", _commands)
    if {TPM2_CC.NV_DefineSpace, TPM2_CC.NV_Increment} <= commands:
        evidence = "implements TPM2_NV_Increment; a redefined counter begins above all before"
        made.append(
            Capability(Operation.COUNTER, COUNTER_NAME, Custody.NATIVE, evidence, assurance)
        )
    if TPM2_CC.Quote in commands:
        evidence = "implements TPM2_Quote; restricted attestation key"
        made.append(Capability(Operation.QUOTE, QUOTE_NAME, Custody.NATIVE, evidence, assurance))
    return sealed + tuple(made)


def _kept(key: TpmKey) -> str:
    key.require_fixed()
    return f"{', '.join(key.attributes())} read back; duplicating it: {_refusal(key.try_duplicate)}"


def _refusal(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except ProviderError as refused:
        if not refused.native:
            raise
        return f"refused ({refused.native})"
    raise CustodyTooLowError(
        "the TPM gave a key away that it must keep", hint="do not use this TPM"
    )


def _timed(operation: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = operation()
    return result, time.perf_counter() - begin


def _commands(esys: Any) -> set[int]:
    _, answer = esys.get_capability(TPM2_CAP.COMMANDS, TPM2_CC.FIRST, 256)
    data = answer.data
    listed = data.command
    return {int(listed[i]) & 0xFFFF for i in range(listed.count)}
