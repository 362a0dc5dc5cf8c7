"""Fixtures that several test files share."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from brokers import Mosquitto, Start
from devices import Pair, copy, introduce, make
from pqc_iiot import Node

MEMORY = Path("/dev/shm")

# A machine may be busy: no test depends on being fast.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' folders in memory where there is room: every message that is taken is
    synced first, and on a busy disk that is what a test run would wait for."""
    given = config.option.basetemp is not None
    if not given and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 1 << 30:
        config.option.basetemp = tempfile.mkdtemp(dir=MEMORY, prefix="pqc-iiot-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the memory back."""
    base = config.option.basetemp
    if base is not None and Path(base).parent == MEMORY:
        shutil.rmtree(base, ignore_errors=True)


# A run in the background ignores Ctrl-C, and so would every program that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of two closed devices that approved each other, to be copied."""
    folder = tmp_path_factory.mktemp("devices")
    with make(folder, "sensor") as sensor, make(folder, "plc") as plc:
        introduce(sensor, plc)
    return folder


@pytest.fixture
def pair(devices: Path, tmp_path: Path) -> Iterator[Pair]:
    """The same two devices, open, for one test alone."""
    copy(devices, tmp_path, "sensor", "plc")
    pair = Pair(tmp_path, Node.open(tmp_path / "sensor"), Node.open(tmp_path / "plc"))
    yield pair
    pair.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts brokers with lines for their configuration; stops them after the test."""
    running: list[Mosquitto] = []

    def start(*lines: str) -> Mosquitto:
        running.append(Mosquitto(tmp_path, *lines))
        return running[-1]

    yield start
    for mosquitto in running:
        mosquitto.stop()
