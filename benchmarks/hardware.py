"""What keys in hardware cost: each provider in a process of its own, with every kind of
hardware that is installed here. Emulators: their times are no silicon's.

    python -m benchmarks hardware
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pqc_iiot import Incoming, Node
from pqc_iiot._core import KemPublicKey
from pqc_iiot.bench import CONTEXT, PAYLOAD, Row, row, timed
from pqc_iiot.providers import open_provider
from pqc_iiot.suites import get_suite

TESTS = Path(__file__).resolve().parents[1] / "tests"
ROUNDS, CALLS, FRAMES = 9, 8, 64
_SOFTWARE = "software:insecure-plaintext-keys"
SETUPS: dict[str, tuple[int, ...]] = {
    "software": (1, 6),
    "TPM (swtpm)": (1, 6),
    "SoftHSM2": (1, 6),
    "NSS softokn": (1,),
    "kryoptic": (6, 7),
}
"""The suites that show what each can do best, and the default one."""


def measure_hardware(folder: Path) -> list[Row]:
    """A table per provider: sign, decapsulate, unseal, counter, and frames each way. What is
    not installed is left out."""
    sys.path.insert(0, str(TESTS))
    folder.mkdir(parents=True)
    rows: list[Row] = []
    for name, suites in SETUPS.items():
        with _prepared(name, folder) as prepared:
            if prepared is None:
                continue
            uri, environment = prepared
            for suite in suites:
                rows += _in_process(name, uri, environment, suite)
    return rows


def _in_process(name: str, uri: str, environment: dict[str, str], suite: int) -> list[Row]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hardware", name, uri, str(suite)],
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
    )
    return [Row(**values) for values in json.loads(done.stdout)]


@contextmanager
def _prepared(name: str, folder: Path) -> Iterator[tuple[str, dict[str, str]] | None]:
    """A URI and its environment, made as the tests make theirs; None where it is missing."""
    if name == "software":
        yield _SOFTWARE, {}
        return
    if name.startswith("TPM"):
        from hardware.tpm_fixture import Swtpm

        if not shutil.which("swtpm") or find_spec("tpm2_pytss") is None:
            yield None
            return
        tpm = Swtpm().start()
        try:
            yield tpm.uri, {}
        finally:
            tpm.destroy()
        return
    from hardware import pkcs11_fixture as tokens

    make: Callable[[Path], Any] | None = {
        "SoftHSM2": tokens.new_softhsm if tokens.SOFTHSM.exists() else None,
        "NSS softokn": tokens.new_softokn if tokens.SOFTOKN.exists() else None,
        "kryoptic": tokens.new_kryoptic if tokens.KRYOPTIC.exists() else None,
    }[name]
    if make is None or find_spec("pkcs11") is None:
        yield None
        return
    token = make(folder / name.replace(" ", "-"))
    yield token.uri, dict(token.environment)


def measure(name: str, uri: str, suite: int) -> list[Row]:
    """One provider and one suite, in this process."""
    chosen = get_suite(suite)
    provider = open_provider(uri)
    keys, blob = provider.generate(chosen)
    what = f"{name}, suite {suite}, {keys.kem_custody.name}/{keys.sig_custody.name}"
    public = KemPublicKey(chosen.kem.id, keys.kem_public_key)
    enc, ciphertext = public.hpke_seal(b"", b"", PAYLOAD)

    def milliseconds(call: Callable[[], object], calls: int = CALLS) -> list[float]:
        return [timed(call, calls) / 1000 for _ in range(ROUNDS)]

    def unseal() -> None:
        opened = open_provider(uri, provider.header)
        opened.load(chosen, blob)
        opened.close()

    rows = [
        row(f"{what}: sign", milliseconds(lambda: keys.sign(PAYLOAD)), "ms"),
        row(
            "  … decapsulate and open",
            milliseconds(lambda: keys.decrypt(enc, b"", b"", ciphertext)),
            "ms",
        ),
    ]
    if counter := provider.counter():
        rows.append(row("  … count once", milliseconds(counter.increment), "ms"))
    unsealed = milliseconds(unseal, 1) if name != "software" else []
    provider.discard(chosen, blob)
    provider.close()
    if unsealed:
        rows.append(row("  … open the device and unseal", unsealed, "ms"))
    return rows + _frames(uri, suite)


def _frames(uri: str, suite: int) -> list[Row]:
    """Frames a second with every rule: sealed by such a device, and opened by it."""
    seal: list[float] = []
    open_: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="pqc-iiot-bench-") as made,
        Node.create(
            Path(made, "device"), name="device", suite=suite, provider=uri, store="memory:"
        ) as device,
        Node.create(
            Path(made, "peer"), name="peer", suite=1, provider=_SOFTWARE, store="memory:"
        ) as peer,
    ):
        device.peers.add_approved(peer.bundle)
        peer.peers.add_approved(device.bundle)
        for _ in range(ROUNDS):
            seal.append(1e6 / timed(lambda: device.seal(PAYLOAD, to="peer"), FRAMES))
            batch = [
                Incoming(peer.seal(PAYLOAD, to="device", context=CONTEXT), CONTEXT)
                for _ in range(FRAMES)
            ]
            took = timed(lambda batch=batch: device.open_many(batch), 1)  # type: ignore[misc]
            open_.append(FRAMES * 1e6 / took)
    return [
        row("  … frames sealed", seal, "a second"),
        row("  … frames opened", open_, "a second"),
    ]


if __name__ == "__main__":
    _name, _uri, _suite = sys.argv[1:]
    print(json.dumps([asdict(each) for each in measure(_name, _uri, int(_suite))]))
