"""Fuzzes one of the targets of `targets.py`, guided by coverage.

    python fuzz/parsers.py TARGET [-max_total_time=SECONDS ...] [FOLDER ...]

The core's own parsers have their targets in `rust/fuzz`. Needs atheris (`pip install
atheris`).
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["pqc_iiot", "targets", "machines", "bending"]):
    import targets


def main(arguments: list[str]) -> None:
    """Fuzzes the target named first; the rest goes to libFuzzer."""
    if len(arguments) < 2 or arguments[1] not in targets.TARGETS:
        sys.exit(f"usage: parsers.py {'|'.join(targets.TARGETS)} [libFuzzer options]")
    target = targets.TARGETS[arguments[1]]()
    atheris.Setup([arguments[0], *arguments[2:]], lambda data: targets.run(target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
