"""Where a state folder lives, so that a copy of it is noticed as one.

A folder that was copied as a whole, to this machine or with its disk to another, is
authentic and as new as its anchor says. What differs is the machine's id or the inode of
the store's file; renaming and rebooting change neither. This is a sign for people, not a
proof: whoever copies a folder with intent can copy these, too.
"""

from __future__ import annotations

from pathlib import Path

from . import cose
from ._core import Secret
from .errors import StateTamperedError
from .store import META, Row, Store

MACHINE_ID = Path("/etc/machine-id")
_ROW = b"place"


def check_place(store: Store, file: Path, key: Secret, generation: int) -> bool:
    """Whether the store's `file` has become a copy since it was last opened here; makes
    what is found durable. `generation` is that of the identity's keys."""
    machine, inode = _machine(key), file.stat().st_ino
    known = _load(store)
    if known is None:
        copied_at, is_copy = 0, False
    else:
        old_machine, old_inode, copied_at = known
        # A machine without an id, or one that hides it, tells nothing.
        is_copy = inode != old_inode or (bool(machine and old_machine) and machine != old_machine)
        if not is_copy and machine == old_machine:
            return False
    value = cose.dumps([machine, inode, generation if is_copy else copied_at])
    with store.transaction():
        store.put(META, Row(_ROW, value))
    return is_copy


def is_copy(store: Store, generation: int) -> bool:
    """Whether the store became a copy and the keys have not changed since: then another
    device with the same keys may be alive."""
    known = _load(store)
    return known is not None and known[2] == generation


def _machine(key: Secret) -> bytes:
    try:
        # machine-id(5) asks that the id itself be kept from the network and from files.
        return key.mac(b"machine" + MACHINE_ID.read_bytes().strip())[:16]
    except OSError:
        return b""


def _load(store: Store) -> tuple[bytes, int, int] | None:
    row = store.get(META, _ROW)
    if row is None:
        return None
    match cose.loads(row.value, 128, "the place", StateTamperedError):
        case [bytes(machine), int(inode), int(copied_at)]:
            return machine, inode, copied_at
    raise StateTamperedError("the place has another shape")
