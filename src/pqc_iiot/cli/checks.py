"""What `doctor` looks at: each check says what it found, and what repairs it.

All but `device` need no keys and work while another process owns the folder. None raises.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from .. import _core
from ..audit import verify
from ..bundle import Bundle, endorsed_by, format_fingerprint, parse_bundle
from ..errors import (
    InvalidBundleError,
    InvalidInputError,
    PqcIiotError,
    SelfTestError,
    StateError,
    StateLockedError,
)
from ..folder import LOCK_FILE, permission_problems
from ..identity import public_bundle
from ..presence import ONE_OF_BOTH, is_elsewhere, parse_presence
from ..trail import AUDIT_FILE
from .disk import look_at_sync

if TYPE_CHECKING:
    from ..node import Node
    from ..status import Status
    from .base import Shell
    from .broker import Broker

Outcome: TypeAlias = Literal["ok", "warning", "failed", "skipped"]

_MIB = 1 << 20
_SLOW_SYNC = 0.1
_SPACE_NEEDED, _SPACE_WISHED = 16 * _MIB, 256 * _MIB
_SOME_TIME_AGO = 1767225600
"""2026-01-01, in seconds since 1970: a clock before it was never set."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `fix` is a command or a sentence, or empty."""

    name: str
    outcome: Outcome
    found: str
    fix: str = ""


def folder(path: Path) -> Check:
    """Who may enter the state folder."""
    try:
        problems = permission_problems(path)
    except StateError as error:
        return Check("folder", "failed", str(error), error.hint)
    for entry, problem, repair in problems:
        return Check("folder", "failed", f"{entry}: {problem}", repair)
    return Check("folder", "ok", f"{path} is for this user only")


def lock(path: Path) -> Check:
    """Whether a process owns the folder; that is how it should be while one runs."""
    try:
        fd = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return Check("lock", "ok", "no process has ever owned the folder")
    except OSError as error:
        return Check("lock", "failed", f"the lock cannot be read: {error.strerror}")
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return Check("lock", "ok", "no process owns the folder")
    except OSError:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        return Check("lock", "ok", f"process {owner or 'unknown'} owns the folder")
    finally:
        os.close(fd)


def durable_writes(path: Path) -> Check:
    """Whether what is written and synced there can be expected to survive a power cut."""
    try:
        sync = look_at_sync(path)
    except OSError as error:
        fix = "check the disk, its free space and whether it is mounted read-only"
        return Check("durable writes", "failed", f"fsync: {error.strerror}", fix)
    found = f"write and fsync take {sync.seconds * 1000:.2f} ms"
    if sync.doubt:
        fix = "keep the folder on a disk of this machine that syncs: what a power cut takes"
        return Check("durable writes", "warning", sync.doubt, f"{fix} makes the device refuse")
    if sync.seconds > _SLOW_SYNC:
        return Check("durable writes", "warning", found, "each batch of messages waits for it")
    return Check("durable writes", "ok", found)


def disk_space(path: Path) -> Check:
    """Whether there is room for numbers and events."""
    free = shutil.disk_usage(path).free
    outcome: Outcome = "ok" if free >= _SPACE_WISHED else "warning"
    outcome = outcome if free >= _SPACE_NEEDED else "failed"
    fix = "" if outcome == "ok" else "make room: without it the device stops"
    return Check("disk space", outcome, f"{free // _MIB} MiB free", fix)


def audit_log(path: Path) -> Check:
    """Whether the log's chain holds."""
    log = path / AUDIT_FILE
    if not log.exists():
        return Check("audit log", "skipped", "there is none yet")
    report = verify(log)
    if report.ok:
        return Check("audit log", "ok", f"{report.events} records, the chain holds")
    found = f"{report.problem_count} contradictions: {report.problems[0].message}"
    return Check("audit log", "failed", found, "pqc-iiot audit verify")


def self_tests() -> Check:
    """Whether every primitive gives its known answers."""
    try:
        _core.self_test()
    except SelfTestError as error:
        return Check("self-tests", "failed", str(error), "reinstall; do not use this installation")
    return Check("self-tests", "ok", "every primitive gave its known answers")


def entropy() -> Check:
    """Whether the kernel's random numbers are good yet."""
    try:
        os.getrandom(32, os.GRND_NONBLOCK)
    except BlockingIOError:
        fix = "wait, or give the machine a hardware random number generator"
        return Check("entropy", "failed", "the kernel has not gathered enough yet", fix)
    return Check("entropy", "ok", "the kernel's random numbers are ready")


def clock() -> Check:
    """Whether the clock was set; nothing but the log's times depends on it."""
    if time.time() < _SOME_TIME_AGO:
        fix = "set it if you can; protection does not need it"
        return Check("clock", "warning", "it was never set: times in the log are wrong", fix)
    return Check("clock", "ok", "set (only the log's times depend on it)")


def secret_memory() -> Check:
    """Whether secrets in use stay out of the swap; says more while the device is open."""
    locked, unlocked, failures = _core.memory_stats()
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    shown = "no limit" if limit == resource.RLIM_INFINITY else f"limit {limit} bytes"
    if failures:
        fix = "LimitMEMLOCK=16M in the systemd unit, or memlock in limits.conf"
        found = f"{unlocked} bytes of secrets may be swapped out ({shown})"
        return Check("secret memory", "warning", found, fix)
    return Check("secret memory", "ok", f"{locked} bytes locked ({shown})")


def rollback(status: Status) -> Check:
    """Whether an older copy of the whole folder would be noticed."""
    if status.rollback_protected:
        found = "a counter in hardware notices an older copy of the folder"
        return Check("rollback", "ok", found)
    found = "an older copy of the whole folder, or a cloned disk, is not noticed"
    fix = "keep the keys in a provider with a counter, such as tpm:"
    return Check("rollback", "warning", found, fix)


def device(shell: Shell) -> Iterator[Check]:
    """Whether the keys open, and whom they trust."""
    from ..node import Node

    passphrase = shell.passphrase()
    try:
        with Node.load(shell.state, passphrase=passphrase) as node:
            status = node.status()
            found = f"{status.name}, suite {status.suite}, {status.provider}"
            yield Check("keys", "ok", found)
            yield rollback(status)
            yield secret_memory()
            yield _copy(status)
            yield from _peers(node)
            yield _backup(status)
        return
    except StateLockedError:
        yield Check("keys", "skipped", "in use by the process that owns the folder")
    except PqcIiotError as error:
        unasked = passphrase is None and error.code == "provider"
        unanswered = shell.passphrase_file is None and isinstance(error, InvalidInputError)
        outcome: Outcome = "skipped" if unasked or unanswered else "failed"
        yield Check("keys", outcome, str(error), error.hint)
    yield secret_memory()


def broker(options: Broker, state: Path) -> Iterator[Check]:
    """Whether the broker lets us in, and what it has under our name."""
    import asyncio

    from ..transports.announcing import ANNOUNCEMENTS, PRESENCE, shown

    try:
        own: Bundle | None = public_bundle(state)
    except PqcIiotError:
        own = None

    async def ask() -> dict[str, bytes | None]:
        async with options.transport() as transport:
            if own is None:
                return {}
            return await shown(transport, ANNOUNCEMENTS + own.name, PRESENCE + own.name)

    try:
        found = asyncio.run(ask())
    except PqcIiotError as error:
        yield Check("broker", "failed", str(error), error.hint)
        return
    yield Check("broker", "ok", f"{options.url} let us in")
    for topic, data in found.items():
        if own and topic.startswith(ANNOUNCEMENTS):
            yield _announcement(own, data)
        elif own:
            yield _presence(own, data, state)
    if own and len(found) < 2:
        fix = "let this device read what it shows: pqc-iiot/bundle/ and pqc-iiot/presence/NAME"
        yield Check("presence", "skipped", "the broker does not let us look", fix)


def _announcement(own: Bundle, shown: bytes | None) -> Check:
    name = "announcement"
    if shown is None:
        return Check(name, "ok", f"nobody shows a bundle as {own.name}")
    try:
        bundle = parse_bundle(shown)
    except InvalidBundleError as error:
        return Check(name, "warning", f"under {own.name} there is no bundle: {error}")
    if bundle.fingerprint == own.fingerprint:
        return Check(name, "ok", "the broker shows this device's bundle")
    if endorsed_by(bundle, own):
        found = (
            f"another device has keys (serial {bundle.serial}) that this device's keys signed:"
            " a backup was restored or the folder was copied, and both are alive"
        )
        return Check(name, "failed", found, "stop one of them; peers follow the newer keys")
    if own.previous == bundle.fingerprint:
        fix = "announce the new one: pqc-iiot listen --announce"
        return Check(name, "warning", "the broker still shows the bundle before the last", fix)
    found = f"somebody shows other keys as {own.name}: {format_fingerprint(bundle.fingerprint)}"
    return Check(name, "warning", found, "find out who; peers refuse them under this name")


def _presence(own: Bundle, data: bytes | None, state: Path) -> Check:
    """Whether only this folder has shown that the keys are in use. Publishes nothing."""
    name = "presence"
    if data is None:
        return Check(name, "ok", "nobody shows that this device's keys are in use")
    try:
        record = parse_presence(data, own)
    except PqcIiotError as error:
        return Check(name, "warning", f"under {own.name} something else is shown: {error}")
    try:
        # After the broker was asked: a process that runs here may show more meanwhile.
        elsewhere = is_elsewhere(state, record, own)
    except PqcIiotError as error:
        return Check(name, "failed", str(error), error.hint)
    if not elsewhere:
        return Check(name, "ok", "only this folder has shown that its keys are in use")
    found = (
        f"the same keys are in use elsewhere, with numbers reserved up to {record.edge}:"
        " this folder was copied, or is itself an older copy"
    )
    return Check(name, "failed", found, ONE_OF_BOTH)


def _copy(status: Status) -> Check:
    if status.cloned:
        found = "the keys were seen in use elsewhere: the folder was copied, or is an older copy"
        return Check("copy", "failed", found, ONE_OF_BOTH)
    if status.copied:
        found = (
            "the folder was copied, or its disk is in another machine: the original may be alive"
        )
        fix = "stop the other one; if there is any doubt make new keys: pqc-iiot id rotate"
        return Check("copy", "warning", found, f"{fix}, then pqc-iiot id retire")
    return Check("copy", "ok", "the folder is where its keys were made")


def _backup(status: Status) -> Check:
    fix = "pqc-iiot backup FILE"
    if status.backup == "none":
        return Check("backup", "warning", "none was ever made", fix)
    if status.backup == "outdated":
        found = "keys, policy or the allow-list were changed since the last one"
        return Check("backup", "warning", found, fix)
    return Check("backup", "ok", "the last one has these keys and this allow-list")


def _peers(node: Node) -> Iterator[Check]:
    try:
        # Reads every row, and so finds any that was changed from outside.
        known, waiting = len(node.peers.list()), len(node.peers.pending())
    except PqcIiotError as error:
        yield Check("peers", "failed", str(error), error.hint)
        return
    if known:
        yield Check("peers", "ok", f"{known} key sets on the allow-list")
    else:
        fix = "pqc-iiot peer add FILE"
        yield Check("peers", "warning", "the allow-list is empty: everybody is refused", fix)
    if waiting:
        found = f"{waiting} bundles wait for approval"
        yield Check("pending", "warning", found, "pqc-iiot peer pending")
