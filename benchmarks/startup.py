"""How long the program takes to start, as a whole process from outside."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from pqc_iiot.bench import Row, row

_SELF_TEST = "import time, pqc_iiot._core as c; s = time.perf_counter(); c.self_test(); "
_SELF_TEST += "print((time.perf_counter() - s) * 1e3)"


def _wall(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


def measure_startup(folder: Path, rounds: int = 9) -> list[Row]:
    """Import, the command line's help, and the self-tests, in milliseconds."""
    del folder
    python = sys.executable
    program = str(Path(python).with_name("pqc-iiot"))
    rows: dict[str, list[float]] = {"help": [], "import": [], "tests": []}
    for _ in range(rounds):
        empty = _wall([python, "-c", "pass"])
        rows["import"].append(_wall([python, "-c", "import pqc_iiot"]) - empty)
        rows["help"].append(_wall([program, "--help"]))
        printed = subprocess.run([python, "-c", _SELF_TEST], check=True, capture_output=True)
        rows["tests"].append(float(printed.stdout))
    return [
        row("import pqc_iiot, beyond the interpreter", rows["import"], "ms", ("<=", 150)),
        row("pqc-iiot --help, whole process", rows["help"], "ms", ("<=", 300)),
        row("self-tests of every primitive", rows["tests"], "ms", ("<=", 10)),
    ]
