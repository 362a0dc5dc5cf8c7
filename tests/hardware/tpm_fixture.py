"""A TPM of its own for every test: swtpm, started, killed and reset for real."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pqc_iiot import cose
from pqc_iiot.errors import ProviderError
from pqc_iiot.providers import Custody, SecurityProvider, open_provider
from pqc_iiot.suites import SUITES

from .required import need


def decoded(encoded: bytes) -> Any:
    """What a header, a reference or a blob is made of."""
    return cose.loads(encoded, 16384, "it", ProviderError)


class Swtpm:
    """One swtpm with its state folder, on a short path: socket names are limited."""

    def __init__(self, state: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tpm"))
        if state is not None:
            for file in state.iterdir():
                if file.is_file():
                    shutil.copy2(file, self.folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def tcti(self) -> str:
        """How tpm2-tss reaches it."""
        return f"swtpm:path={self.folder}/s"

    @property
    def uri(self) -> str:
        """How we reach it."""
        return f"tpm:{self.tcti}"

    @property
    def custody(self) -> dict[int, Custody]:
        """What is claimed of each suite's keys."""
        return {n: Custody.SPLIT if n == 6 else Custody.SEALED for n in SUITES}

    def start(self) -> Swtpm:
        """Starts it; it answers when this returns."""
        self._process = subprocess.Popen(
            [
                "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder},mode=0600",
                "--server", f"type=unixio,path={self.folder}/s",
                "--ctrl", f"type=unixio,path={self.folder}/s.ctrl",
                "--flags", "not-need-init,startup-clear",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while not all(_listens(f"{self.folder}/{name}") for name in ("s", "s.ctrl")):
            assert self._process.poll() is None, "swtpm ended"
            assert time.monotonic() < deadline, "swtpm does not start"
            time.sleep(0.002)
        return self

    @property
    def pid(self) -> int:
        """Of the running daemon."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: what a power cut is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """A power cut, and power again."""
        self.kill()
        self.start()

    def replace(self) -> None:
        """Another TPM, at the same place."""
        self.kill()
        for file in self.folder.glob("tpm2-*"):
            file.unlink()
        self.start()

    def destroy(self) -> None:
        """Ends it and removes its state."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def esapi(self) -> Iterator[Any]:
        """A connection of the test's own, as any other program has one."""
        from tpm2_pytss import ESAPI

        with ESAPI(self.tcti) as esys:
            yield esys

    def loaded(self) -> tuple[int, int, int]:
        """Transient objects, loaded sessions, saved sessions."""
        from tpm2_pytss.constants import TPM2_CAP

        counts = []
        with self.esapi() as esys:
            for first in (0x80000000, 0x02000000, 0x03000000):
                _, answer = esys.get_capability(TPM2_CAP.HANDLES, first, 64)
                data = answer.data
                handles = data.handles
                counts.append(int(handles.count))
        return counts[0], counts[1], counts[2]

    def indices(self) -> list[int]:
        """The NV indices that are defined."""
        from tpm2_pytss.constants import TPM2_CAP

        with self.esapi() as esys:
            _, answer = esys.get_capability(TPM2_CAP.HANDLES, 0x01000000, 64)
            data = answer.data
            handles = data.handles
            return [int(handles.handle[i]) for i in range(handles.count)]

    def extend(self, pcr: int) -> None:
        """Changes a PCR, as other firmware or another boot loader would."""
        from tpm2_pytss.constants import ESYS_TR, TPM2_ALG
        from tpm2_pytss.types import TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA

        digest = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=b"\7" * 32))
        with self.esapi() as esys:
            esys.pcr_extend(ESYS_TR(pcr), TPML_DIGEST_VALUES([digest]))

    def lockout(self) -> tuple[int, int]:
        """Wrong authorisations that the TPM counts now, and how many lock it."""
        from tpm2_pytss.constants import TPM2_CAP, TPM2_PT

        counts = []
        with self.esapi() as esys:
            for number in (TPM2_PT.LOCKOUT_COUNTER, TPM2_PT.MAX_AUTH_FAIL):
                _, answer = esys.get_capability(TPM2_CAP.TPM_PROPERTIES, number, 1)
                data = answer.data
                properties = data.tpmProperties
                entry = properties[0]
                counts.append(int(entry.value))
        return counts[0], counts[1]

    def lock(self) -> None:
        """Another program's wrong passwords, until the TPM takes none any more."""
        from tpm2_pytss import TSS2_Exception
        from tpm2_pytss.constants import TPM2_ALG, TPMA_NV
        from tpm2_pytss.types import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

        area = TPMS_NV_PUBLIC(
            nvIndex=0x01000001,
            nameAlg=TPM2_ALG.SHA256,
            dataSize=8,
            attributes=TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE,
        )
        with self.esapi() as esys:
            handle = esys.nv_define_space(b"theirs", TPM2B_NV_PUBLIC(area))
            esys.tr_set_auth(handle, b"wrong")
            for _ in range(self.lockout()[1]):
                with contextlib.suppress(TSS2_Exception):
                    esys.nv_write(handle, b"x")

    def provider(self, options: str = "", header: bytes | None = None) -> SecurityProvider:
        """The provider, new or as stored."""
        return open_provider(self.uri + options, header)


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def tpm_template() -> Iterator[Path]:
    """The state of a TPM that was manufactured once, to be copied."""
    need(shutil.which("swtpm") is not None, "swtpm is not installed")
    try:
        import tpm2_pytss  # noqa: F401
    except ImportError:
        need(False, "the extra tpm is not installed")
    tpm = Swtpm().start()
    try:
        os.kill(tpm.pid, 0)
        tpm.kill()
        yield tpm.folder
    finally:
        tpm.destroy()


@pytest.fixture
def make_tpm(tpm_template: Path) -> Iterator[type[Swtpm]]:
    """Makes further TPMs, each another one: they end with the test."""
    made: list[Swtpm] = []

    class Made(Swtpm):
        def __init__(self, state: Path | None = None) -> None:
            super().__init__(state)
            made.append(self)

    yield Made
    for each in made:
        each.destroy()


@pytest.fixture
def tpm(make_tpm: type[Swtpm]) -> Swtpm:
    """A running TPM for this test alone."""
    return make_tpm().start()
