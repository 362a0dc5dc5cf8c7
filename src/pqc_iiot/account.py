"""Which person's account a command was given from, as far as the system knows."""

from __future__ import annotations

import functools
import os
import pwd
from pathlib import Path
from typing import Final

_UNSET: Final = 2**32 - 1


@functools.cache
def account() -> str:
    """The name (or number) of the account that logged in, also behind `sudo`: the kernel's
    login uid, which no process can take off again; else this process's real uid."""
    try:
        uid = int(Path("/proc/self/loginuid").read_text())
    except (OSError, ValueError):
        uid = _UNSET
    if uid == _UNSET:
        uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
