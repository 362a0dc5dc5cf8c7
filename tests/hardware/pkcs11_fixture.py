"""Tokens to test with: SoftHSM2, which is classical, NSS softokn, which performs ML-KEM, and
kryoptic, which performs ML-DSA too.

Each test gets a fresh copy of a token that was initialised once. SoftHSM runs in the process
of the tests, the others never: they run in processes of their own (`Tokens.run`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pqc_iiot.providers import Custody
from pqc_iiot.suites import SUITES

from .required import need

SOFTHSM = Path(os.environ.get("PQC_IIOT_SOFTHSM", "/usr/lib/softhsm/libsofthsm2.so"))
SOFTOKN = Path(os.environ.get("PQC_IIOT_SOFTOKN", Path(sys.prefix, "softokn", "libsoftokn3.so")))
KRYOPTIC = Path(os.environ.get("PQC_IIOT_KRYOPTIC", Path(sys.prefix, "kryoptic", "libkryoptic.so")))
HERE = Path(__file__).parent
PIN = "user-1234"
SO_PIN = "so-123456"


@dataclass
class Tokens:
    """Tokens in a folder, and the URI of the one that the test uses."""

    folder: Path
    uri: str
    custody: Mapping[int, Custody]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def pin_file(self) -> Path:
        """Holds the PIN; the URI names it."""
        return self.folder / "pin"

    def write_pin(self, pin: str) -> None:
        """Puts another PIN there."""
        self.pin_file.touch(0o600)
        self.pin_file.write_text(pin)

    def run(self, job: str, *arguments: object, check: bool = True) -> str:
        """Runs a function of `pkcs11_jobs` in a process of its own: what it prints."""
        done = subprocess.run(
            [sys.executable, "-W", "error", HERE / "pkcs11_jobs.py", job, *map(str, arguments)],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout


class SoftHsm(Tokens):
    """SoftHSM2, in this process."""

    module = SOFTHSM

    def restart(self) -> None:
        """The module initialised anew, as after a start of the process."""
        from pqc_iiot.providers.pkcs11_token import Module

        os.environ["SOFTHSM2_CONF"] = str(self.folder / "softhsm2.conf")
        Module.load(self.module).reset()

    def other(self, name: str = "other") -> SoftHsm:
        """Another token under the same label, in another folder; `restart` changes to it."""
        folder = self.folder.with_name(name)
        make_softhsm(folder, "plant")
        token = SoftHsm(folder, self.uri.replace(str(self.folder), str(folder)), self.custody)
        token.write_pin(PIN)
        return token


@dataclass
class Shim(SoftHsm):
    """SoftHSM2 behind a module that fails when it is told to: see `pkcs11_shim.c`."""

    module: Path = SOFTHSM
    told: Path = Path()

    def tell(self, function: str, number: int = 0x32) -> None:
        """Lets a function return this from now on (`C_Sign`) or once (`C_Sign.once`); or the
        token be `gone`, have more `flags`, or make `wrong` signatures."""
        (self.told / function).write_text(hex(number))

    def forget(self, function: str) -> None:
        """Undoes `tell`."""
        (self.told / function).unlink()

    def calls(self, function: str) -> int:
        """How often it was called."""
        file = self.told / f"{function}.calls"
        return file.stat().st_size if file.exists() else 0

    @property
    def logins(self) -> int:
        """How often a PIN was tried."""
        return self.calls("C_Login")


@pytest.fixture(scope="session")
def softhsm_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an initialised SoftHSM2 token."""
    need(
        SOFTHSM.exists() and shutil.which("softhsm2-util") is not None,
        "SoftHSM2 is not installed",
    )
    folder = tmp_path_factory.mktemp("softhsm")
    make_softhsm(folder, "plant")
    return folder


@pytest.fixture
def softhsm(
    softhsm_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SoftHsm]:
    """A SoftHSM2 token for one test alone."""
    folder = tmp_path / "softhsm"
    shutil.copytree(softhsm_template / "tokens", folder / "tokens")
    configure_softhsm(folder)
    monkeypatch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
    token = _softhsm(folder)
    token.restart()
    yield token
    monkeypatch.undo()


def new_softhsm(folder: Path) -> SoftHsm:
    """A token of its own, initialised now."""
    make_softhsm(folder, "plant")
    return _softhsm(folder)


def _softhsm(folder: Path) -> SoftHsm:
    uri = f"pkcs11:module={SOFTHSM};token=plant;pin-file={folder}/pin"
    custody = {suite: Custody.SPLIT if suite == 6 else Custody.SEALED for suite in SUITES}
    token = SoftHsm(folder, uri, custody, {"SOFTHSM2_CONF": f"{folder}/softhsm2.conf"})
    token.write_pin(PIN)
    return token


@pytest.fixture(scope="session")
def shim_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled module; behind it is a copy, for one process has a module once."""
    need(SOFTHSM.exists(), "SoftHSM2 is not installed")
    folder = tmp_path_factory.mktemp("shim")
    shutil.copy(SOFTHSM, folder / "real.so")
    command: list[str | Path] = [
        "cc",
        "-shared",
        "-fPIC",
        "-o",
        folder / "shim.so",
        HERE / "pkcs11_shim.c",
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return folder / "shim.so"


@pytest.fixture
def shim(softhsm: SoftHsm, shim_module: Path, monkeypatch: pytest.MonkeyPatch) -> Shim:
    """The token of `softhsm` behind a module that can be told to fail."""
    told = softhsm.folder / "told"
    told.mkdir()
    monkeypatch.setenv("PKCS11_SHIM", str(told))
    monkeypatch.setenv("PKCS11_SHIM_REAL", str(shim_module.with_name("real.so")))
    uri = softhsm.uri.replace(str(SOFTHSM), str(shim_module))
    shim = Shim(softhsm.folder, uri, softhsm.custody, {}, shim_module, told)
    shim.restart()
    return shim


def make_softhsm(folder: Path, label: str) -> None:
    """Initialises a token in a folder, besides those that are there."""
    configure_softhsm(folder)
    pins = ["--so-pin", SO_PIN, "--pin", PIN]
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", label, *pins],
        env={**os.environ, "SOFTHSM2_CONF": str(folder / "softhsm2.conf")},
        check=True,
        capture_output=True,
    )


def configure_softhsm(folder: Path) -> None:
    """Writes the file that tells the module where its tokens are."""
    (folder / "tokens").mkdir(parents=True, exist_ok=True)
    text = f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n"
    (folder / "softhsm2.conf").write_text(text + "log.level = ERROR\n")


class Softokn(Tokens):
    """NSS softokn, in processes of their own."""

    def restart(self) -> None:
        """Nothing of it lives longer than its process."""

    def read_only(self) -> Softokn:
        """The same token, write-protected."""
        return _softokn(self.folder, "readOnly")


@pytest.fixture(scope="session")
def softokn_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an NSS database with a PIN."""
    need(SOFTOKN.exists(), "NSS softokn is not there: tools/get-softokn .venv/softokn")
    return new_softokn(tmp_path_factory.mktemp("softokn")).folder


def new_softokn(folder: Path) -> Softokn:
    """A database of its own, initialised now."""
    folder.mkdir(exist_ok=True)
    token = _softokn(folder)
    token.run("initialise_softokn", SOFTOKN, PIN)
    return token


@pytest.fixture
def softokn(softokn_template: Path, tmp_path: Path) -> Softokn:
    """An NSS database for one test alone."""
    shutil.copytree(softokn_template, tmp_path / "softokn")
    return _softokn(tmp_path / "softokn")


def _softokn(folder: Path, flags: str = "") -> Softokn:
    where = f"configDir='sql:{folder}' certPrefix='' keyPrefix='' secmod='secmod.db'"
    environment = {
        "LD_LIBRARY_PATH": str(SOFTOKN.parent),
        "NSS_LIB_PARAMS": f"{where} flags={flags} ",
    }
    uri = f"pkcs11:module={SOFTOKN};token=NSS%20Certificate%20DB;pin-file={folder}/pin"
    # It performs ML-KEM, ECDH and ECDSA inside, but wraps any key for whoever asks.
    custody = dict.fromkeys(SUITES, Custody.SEALED)
    token = Softokn(folder, uri, custody, environment)
    token.write_pin(PIN)
    return token


class Kryoptic(Tokens):
    """Kryoptic, in processes of their own."""

    def restart(self) -> None:
        """Nothing of it lives longer than its process."""

    def behind(self, shim: Path) -> Kryoptic:
        """The same token behind the module that can be told to fail."""
        told = self.folder / "told"
        told.mkdir()
        more = {"PKCS11_SHIM": str(told), "PKCS11_SHIM_REAL": str(KRYOPTIC)}
        uri = self.uri.replace(str(KRYOPTIC), str(shim))
        return Kryoptic(self.folder, uri, self.custody, {**self.environment, **more})


@pytest.fixture(scope="session")
def kryoptic_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an initialised token."""
    need(KRYOPTIC.exists(), "kryoptic is missing: run `make test`, or tools/get-kryoptic")
    return new_kryoptic(tmp_path_factory.mktemp("kryoptic")).folder


def new_kryoptic(folder: Path) -> Kryoptic:
    """A token of its own, initialised now."""
    folder.mkdir(exist_ok=True)
    token = _kryoptic(folder)
    tool: list[str | Path] = ["pkcs11-tool", "--module", KRYOPTIC, "--so-pin", SO_PIN]
    for more in (
        ["--init-token", "--label", "plant", "--slot", "1"],
        ["--login", "--login-type", "so", "--init-pin", "--pin", PIN],
    ):
        subprocess.run(
            [*tool, *more],
            env={**os.environ, **token.environment},
            check=True,
            capture_output=True,
        )
    return token


@pytest.fixture
def kryoptic(kryoptic_template: Path, tmp_path: Path) -> Kryoptic:
    """A token of kryoptic for one test alone."""
    shutil.copytree(kryoptic_template, tmp_path / "kryoptic")
    return _kryoptic(tmp_path / "kryoptic")


def _kryoptic(folder: Path) -> Kryoptic:
    text = f'[[slots]]\nslot = 1\ndbtype = "sqlite"\ndbargs = "{folder}/token.sql"\n'
    (folder / "kryoptic.conf").write_text(text)
    native = {5: Custody.NATIVE, 6: Custody.SPLIT, 7: Custody.NATIVE}
    custody = {suite: native.get(suite, Custody.SEALED) for suite in SUITES}
    uri = f"pkcs11:module={KRYOPTIC};token=plant;pin-file={folder}/pin"
    token = Kryoptic(folder, uri, custody, {"KRYOPTIC_CONF": f"{folder}/kryoptic.conf"})
    token.write_pin(PIN)
    return token


@pytest.fixture(params=["softokn", "kryoptic"])
def native(request: pytest.FixtureRequest) -> Tokens:
    """A token that performs ML-KEM, one after the other."""
    token: Tokens = request.getfixturevalue(request.param)
    return token
