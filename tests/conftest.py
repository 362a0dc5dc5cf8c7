"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers import Mosquitto, Start


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
