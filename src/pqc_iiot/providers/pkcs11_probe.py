"""What a token can do, found by doing it once with keys that are not stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from pkcs11 import SlotFlag

from ..errors import ProviderError
from ..suites import FALCON_512_ECDSA_P256, ML_KEM_768_P256, SUITES, Kem, Sig
from .base import Assurance, Capability, Custody, Operation
from .pkcs11_native import probe as probe_native
from .pkcs11_split import EC_MECHANISMS, probe_ecdh, probe_ecdsa
from .pkcs11_token import Live, Token
from .pkcs11_uri import Numbers


def assurance(live: Live) -> Assurance:
    """What calls itself hardware may still lie; what does not is a program."""
    hardware = live.session.token.slot.flags & SlotFlag.HW_SLOT
    return Assurance.CLAIMED if hardware else Assurance.EMULATOR


def probe(
    token: Token, numbers: Mapping[str, Numbers], assured: Assurance, wraps: str
) -> Iterator[Capability]:
    """What the token performs, each with its evidence and how long the probe took.

    `wraps` is the mechanism with which the token gives its keys away, or "": then what it
    performs is no better kept than what it seals.
    """
    for operation, algorithm, custody, run in _trials(token.run(Live.mechanisms), numbers):
        since = time.perf_counter()
        try:
            evidence = token.run(run)
        except ProviderError:
            # It announces what it cannot do; but one that went away is no token without it.
            token.run(Live.mechanisms)
            continue
        seconds = time.perf_counter() - since
        if wraps:
            kept = Custody.SEALED
            evidence = (
                "performed inside, but the token wraps its keys for whoever knows its PIN"
                f" ({wraps}); {evidence}"
            )
        else:
            kept = custody
            evidence += "; wrapping it refused"
        row = Capability(operation, algorithm.name, kept, evidence, assured, seconds)
        yield row
        if isinstance(algorithm, Kem) and custody is Custody.NATIVE:
            yield replace(row, operation=Operation.DECAPSULATE)


_Trial = tuple[Operation, Kem | Sig, Custody, Callable[[Live], str]]


def _trials(mechanisms: frozenset[int], numbers: Mapping[str, Numbers]) -> Iterator[_Trial]:
    if mechanisms >= EC_MECHANISMS:
        yield Operation.DECRYPT, ML_KEM_768_P256, Custody.SPLIT, probe_ecdh
        yield Operation.SIGN, FALCON_512_ECDSA_P256, Custody.SPLIT, probe_ecdsa
    algorithms = {a.name: a for suite in SUITES.values() for a in (suite.kem, suite.sig)}
    for name, said in numbers.items():
        if mechanisms >= {said.generate, said.use}:
            algorithm = algorithms[name]
            operation = Operation.DECRYPT if isinstance(algorithm, Kem) else Operation.SIGN

            def run(live: Live, algorithm: Kem | Sig = algorithm, said: Numbers = said) -> str:
                return probe_native(live, algorithm, said)

            yield operation, algorithm, Custody.NATIVE, run
