"""A device's log, and what its life leaves there: keys, trust, self-tests, memory, permissions."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._core import memory_stats, self_test
from .account import account
from .audit import AuditLog
from .audit.limit import Limiter
from .bundle import MAX_BUNDLE_SIZE, Bundle, parse_bundle
from .errors import (
    PqcIiotError,
    ProviderError,
    SelfTestError,
    StateError,
    UnsafePermissionsError,
)
from .folder import StateFolder, permission_problems
from .identity import BUNDLE_FILE, Identity
from .keystore import Listener, Peer
from .policy import Policy

if TYPE_CHECKING:
    from .audit.sinks import AuditSettings, Sinks

_EVENTS: Final = {
    "waiting": "peer_pending",
    "seen": "peer_pending_seen",
    "evicted": "peer_pending_dropped",
    "added": "peer_added",
    "approved": "peer_approved",
    "pinned": "peer_pinned",
    "rotated": "peer_rotated",
    "revoked": "peer_revoked",
}
_BY_OPERATORS: Final = ("added", "approved", "revoked")


AUDIT_FILE: Final = "audit.log"
_SETTINGS_FILE: Final = "audit.json"


class LockLimitWarning(UserWarning):
    """Some secrets are in memory that the system may swap out."""


def open_log(folder: StateFolder, name: str) -> tuple[AuditLog, Sinks | None]:
    """A device's log, limited, with its sinks at work until it is closed.

    `InvalidInputError` where `audit.json` cannot be used, otherwise as `AuditLog`.
    """
    path, settings = folder.path / AUDIT_FILE, read_settings(folder)
    if settings is None:
        return AuditLog(path, device=name, limiter=Limiter()), None
    from .audit.sinks import Sinks

    audit = AuditLog(path, device=name, limiter=Limiter(), retention=settings.retention)
    return audit, Sinks(settings, audit, path, folder.path)


def read_settings(folder: StateFolder) -> AuditSettings | None:
    """What `audit.json` says; None where there is none. Errors as `open_log`."""
    data = folder.read(_SETTINGS_FILE, 64 * 1024)
    if data is None:
        return None
    from .audit.sinks import AuditSettings

    return AuditSettings.decode(data)


def run_self_test(audit: AuditLog) -> None:
    """Every primitive's known answers; `SelfTestError`, which the caller logs."""
    self_test()
    audit.emit("self_test_passed")


def require_log(audit: AuditLog, policy: Policy) -> None:
    """Raises `StateError` where policy demands a log and it cannot be written."""
    if policy.audit_required and (error := audit.failing):
        raise StateError(
            f"policy demands an audit log, and it cannot be written: {error}",
            hint="check free space and permissions, or: pqc-iiot policy set --no-audit-required",
        )


def emit_failure(audit: AuditLog, error: PqcIiotError, folder: Path) -> None:
    """What kept a device from being made, opened or recovered."""
    known = {"path": str(folder)}
    if isinstance(error, SelfTestError):
        known["test"] = str(error).removeprefix("the self-test of ").removesuffix(" failed")
    if isinstance(error, ProviderError) and error.native:
        known["native"] = error.native
    if isinstance(error.__cause__, OSError):
        known["error"] = errno.errorcode.get(error.__cause__.errno or 0, "unknown")
    audit.emit_error(error, **known)


def emit_key_event(audit: AuditLog, event: str, identity: Identity, **more: str) -> None:
    """A key set of this device was made, loaded or rotated."""
    own = identity.current
    audit.emit(
        event,
        fingerprint=own.bundle.fingerprint.hex(),
        suite=own.bundle.suite.id,
        serial=own.bundle.serial,
        provider=identity.provider.scheme,
        custody=own.keys.custody.name.lower(),
        **more,
    )


def trust_listener(audit: AuditLog) -> Listener:
    """What the keystore tells, as events."""

    def changed(what: str, subject: Peer | Bundle, transport: str) -> None:
        bundle = subject if isinstance(subject, Bundle) else subject.bundle
        details: dict[str, str | int] = {"name": subject.name}
        if what not in ("seen", "evicted", "revoked"):
            details |= {"suite": bundle.suite.id, "serial": bundle.serial}
        if what == "rotated" and bundle.previous:
            details["predecessor"] = bundle.previous.hex()
        if what in _BY_OPERATORS:
            details["operator"] = account()
        elif transport and what != "evicted":  # it is another that came by it
            details["transport"] = transport
        audit.emit(_EVENTS[what], peer=bundle.fingerprint.hex(), **details)

    return changed


def warn_of_lock_limit(audit: AuditLog) -> None:
    """Says so where secrets are in memory that could not be locked."""
    _, unlocked, failures = memory_stats()
    if failures:
        audit.emit("memory_lock_limited", limit=unlocked)
        warnings.warn(
            f"{unlocked} bytes of secret memory could not be locked and may be swapped out:"
            " raise RLIMIT_MEMLOCK (LimitMEMLOCK= in systemd)",
            LockLimitWarning,
            stacklevel=5,
        )


def emit_permissions(path: str | os.PathLike[str], log: str, error: UnsafePermissionsError) -> None:
    """Leaves `error` in the log of a folder that was refused, where that is safe: the log
    is there, and nobody else could have put anything else under its name."""
    folder = Path(path)
    with contextlib.suppress(OSError, PqcIiotError):
        here, there = folder.lstat(), (folder / log).lstat()
        entry, _, _ = permission_problems(folder)[0]
        mode = stat.S_IMODE(entry.lstat().st_mode)
        others_write = (here.st_mode | there.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
        ours = here.st_uid == there.st_uid == os.geteuid()
        if stat.S_ISDIR(here.st_mode) and there.st_nlink == 1 and ours and not others_write:
            with AuditLog(folder / log, device=_public_name(folder)) as audit:
                audit.emit_error(error, path=str(entry), mode=f"{mode:04o}")


def _public_name(folder: Path) -> str:
    with (folder / BUNDLE_FILE).open("rb") as file:
        return parse_bundle(file.read(MAX_BUNDLE_SIZE + 1)).name
