"""Published test vectors, read from `shared/vectors` beside the repository, never copied."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "vectors"


def load(name: str) -> Any:
    """The content of one file of published vectors; skips the test where it is missing."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"published vectors {name} are not in shared/vectors beside the repository")
    return json.loads(path.read_text())


def wycheproof(name: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The groups and cases of a Wycheproof file, every one of them."""
    document = load(name)
    cases = [(group, case) for group in document["testGroups"] for case in group["tests"]]
    assert len(cases) == document["numberOfTests"]
    yield from cases
