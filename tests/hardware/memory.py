"""Looks for secrets in the memory of another process."""

from __future__ import annotations

import re
from pathlib import Path


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
