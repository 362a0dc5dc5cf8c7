"""Looks for secrets in the memory of another process, and processes to look into."""

from __future__ import annotations

import re
from pathlib import Path

# Each says what it may, waits for a line, does its work, and waits again.
PROGRAM = """
import sys
from pqc_iiot.providers import open_provider
from pqc_iiot.suites import SUITES
provider = open_provider(sys.argv[1], bytes.fromhex(sys.argv[2]) if len(sys.argv) > 2 else None)
print(provider.header.hex(), flush=True)
sys.stdin.readline()
keys, blob = provider.generate(SUITES[6])
keys.sign(b"m")
print("ready", flush=True)
sys.stdin.readline()
"""

AGREE = """
import sys
from pqc_iiot.providers import open_provider
ecdh, _ = open_provider(sys.argv[1]).make_ecdh()
print(ecdh.public_key.hex(), flush=True)
share = ecdh.agree(bytes.fromhex(sys.stdin.readline()))
print("ready", flush=True)
sys.stdin.readline()
"""


def places(pid: int, needle: bytes) -> list[str]:
    """The mappings of a process in which it stands, but for locked ones."""
    found = []
    smaps = Path(f"/proc/{pid}/smaps").read_text()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for part in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", smaps):
            head, *_ = part.splitlines()
            flags = re.search(r"VmFlags:(.*)", part)
            span, mode, *_ = head.split()
            if "r" not in mode or (flags and " lo" in flags[1]):
                continue
            begin, end = (int(number, 16) for number in span.split("-"))
            try:
                memory.seek(begin)
                data = memory.read(end - begin)
            except (OSError, OverflowError):
                continue
            found += [head] * data.count(needle)
    return found
