"""The fuzz targets over their kept inputs: what a campaign found new coverage with, replayed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[1] / "fuzz"
sys.path.insert(0, str(FUZZ))

from machines import OPEN  # noqa: E402 - found by the line above
from targets import TARGETS, run  # noqa: E402


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_are_answered_or_refused(name: str) -> None:
    inputs = sorted((FUZZ / "corpus" / name).iterdir())
    assert inputs, "a target without a seed"
    target = TARGETS[name]()
    with OPEN:
        for file in inputs:
            run(target, file.read_bytes())


def test_every_target_of_the_core_has_seeds() -> None:
    rust = FUZZ.parent / "rust/fuzz"
    names = {file.stem for file in (rust / "fuzz_targets").glob("*.rs")}
    assert {folder.name for folder in (rust / "corpus").iterdir()} == names
    files = [*FUZZ.glob("corpus/*/*"), *rust.glob("corpus/*/*")]
    assert sum(file.stat().st_size for file in files) < 300_000
