"""How long a provider takes for what it can do: medians of a few runs each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from .._core import KemPublicKey, Secret
from ..providers import Capability, Operation
from .subject import Subject

RUNS = 7


def median(call: Callable[[], object], runs: int = RUNS) -> float:
    """Seconds of one call."""
    times = []
    for _ in range(runs):
        since = time.perf_counter()
        call()
        times.append(time.perf_counter() - since)
    return statistics.median(times)


def timed(subject: Subject) -> tuple[Capability, ...]:
    """The provider's capabilities, with the time of each as its keys are: of several rows of
    one algorithm, the one with the custody that its keys have."""
    provider = subject.provider
    times: dict[tuple[Operation, str, int], float] = {}
    for suite in subject.suites():
        keys, _ = subject.keys(suite)
        public = KemPublicKey(suite.kem.id, keys.kem_public_key)
        enc, ciphertext = public.hpke_seal(b"", b"", b"message")
        decrypting = (Operation.DECRYPT, suite.kem.name, int(keys.kem_custody))
        signing = (Operation.SIGN, suite.sig.name, int(keys.sig_custody))
        if decrypting not in times:
            times[decrypting] = median(lambda: keys.decrypt(enc, b"", b"", ciphertext))  # noqa: B023
        if signing not in times:
            times[signing] = median(lambda: keys.sign(b"message"))  # noqa: B023
    rows = [
        replace(
            row, seconds=times.get((row.operation, row.algorithm, int(row.custody)), row.seconds)
        )
        for row in provider.capabilities()
        if row.operation not in (Operation.COUNTER, Operation.QUOTE, Operation.SEAL)
    ]
    others = [row for row in provider.capabilities() if row.operation not in _OF_KEYS]
    return (*rows, *(replace(row, seconds=_of_device(subject, row)) for row in others))


_OF_KEYS = (Operation.DECRYPT, Operation.DECAPSULATE, Operation.SIGN, Operation.GENERATE)


def _of_device(subject: Subject, row: Capability) -> float | None:
    provider = subject.provider
    if row.operation is Operation.COUNTER and (counter := provider.counter()):
        return median(counter.increment, 3)
    if row.operation is Operation.QUOTE:
        return median(lambda: provider.quote(bytes(32)))
    if row.operation is Operation.SEAL:
        blob = provider.seal(b"purpose", Secret.random())
        return median(lambda: provider.unseal(b"purpose", blob))
    return row.seconds
