"""Who may enter a state folder, who owns it, and how files get there."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pqc_iiot import InvalidInputError, StateError
from pqc_iiot.errors import StateLockedError, UnsafePermissionsError
from pqc_iiot.folder import StateFolder, permission_problems


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = StateFolder(tmp_path / "state", create=True)
    folder.write("identity", b"content")
    folder.close()
    return folder.path


def test_a_new_folder_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = StateFolder(tmp_path / "a" / "b", create=True)
        folder.write("identity", b"content")
    finally:
        os.umask(old)
    assert folder.path.stat().st_mode & 0o7777 == 0o700
    assert {entry.stat().st_mode & 0o7777 for entry in folder.path.iterdir()} == {0o600}
    assert permission_problems(folder.path) == []
    folder.close()


def test_a_new_folder_is_there_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("pqc_iiot.folder.sync_folder", synced.append)
    StateFolder(tmp_path / "state", create=True).close()
    assert synced == [tmp_path]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no state folder") as caught:
        StateFolder(tmp_path / "none")
    assert "init" in caught.value.hint
    assert not (tmp_path / "none").exists()
    with pytest.raises(StateError):
        StateFolder("/dev/null/none", create=True)


def chmod(mode: int, name: str = "") -> Callable[[Path], object]:
    return lambda path: (path / name if name else path).chmod(mode)


def to_link(path: Path) -> None:
    path.rename(path.parent / "real")
    path.symlink_to(path.parent / "real")


def file_to_link(path: Path) -> None:
    (path / "identity").rename(path.parent / "real")
    (path / "identity").symlink_to(path.parent / "real")


def lock_to_link(path: Path) -> None:
    (path / "lock").unlink()
    (path / "lock").symlink_to(path.parent / "victim")


def to_pipe(path: Path) -> None:
    (path / "identity").unlink()
    os.mkfifo(path / "identity", 0o600)


def to_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path)
        server.bind("socket")
        Path("socket").chmod(0o600)


def to_file(path: Path) -> None:
    path.rename(path.parent / "real")
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "harm",
    [
        chmod(0o750),
        chmod(0o701),
        chmod(0o707),
        chmod(0o640, "identity"),
        chmod(0o606, "identity"),
        chmod(0o644, "lock"),
        to_link,
        file_to_link,
        lock_to_link,
        to_pipe,
        to_socket,
        to_file,
    ],
)
def test_unsafe_folders_are_refused_with_what_repairs_them(
    path: Path, harm: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    victim = path.parent / "victim"
    victim.write_bytes(b"precious")
    harm(path)
    with pytest.raises(UnsafePermissionsError) as caught:
        StateFolder(path)
    assert caught.value.hint
    assert caught.value.exit_code == 4
    assert victim.read_bytes() == b"precious"
    if caught.value.hint.startswith("chmod"):
        subprocess.run(caught.value.hint, shell=True, check=True)
        StateFolder(path).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_other_users_are_refused(path: Path) -> None:
    os.chown(path / "identity", 12345, -1)
    with pytest.raises(UnsafePermissionsError, match="belongs to another user"):
        StateFolder(path)
    os.chown(path / "identity", 0, -1)
    os.chown(path, 12345, -1)
    with pytest.raises(UnsafePermissionsError):
        StateFolder(path)


def test_nothing_is_written_into_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "lock").write_bytes(b"somebody's file")
    with pytest.raises(UnsafePermissionsError):
        StateFolder(tmp_path)
    (tmp_path / "other").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="not empty"):
        StateFolder(tmp_path, create=True)
    assert (tmp_path / "lock").read_bytes() == b"somebody's file"


def test_a_device_is_never_made_over_another(path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not empty"):
        StateFolder(path, create=True)
    assert (path / "identity").read_bytes() == b"content"
    StateFolder(path).close()


def test_a_race_of_two_creations_has_one_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the lock, another process makes a device."""
    take_lock = StateFolder._take_lock

    def late(folder: StateFolder) -> int:
        monkeypatch.setattr(StateFolder, "_take_lock", take_lock)
        winner = StateFolder(folder.path, create=True)
        winner.write("identity", b"the winner's")
        winner.close()
        return take_lock(folder)

    monkeypatch.setattr(StateFolder, "_take_lock", late)
    with pytest.raises(InvalidInputError, match="not empty"):
        StateFolder(tmp_path / "state", create=True)
    assert (tmp_path / "state" / "identity").read_bytes() == b"the winner's"
    StateFolder(tmp_path / "state").close()


def test_a_creation_that_failed_early_can_be_repeated(tmp_path: Path) -> None:
    StateFolder(tmp_path / "state", create=True).close()
    for name in ("audit.log", "audit.head", "audit.anything", "identity.new"):
        (tmp_path / "state" / name).touch(0o600)
    StateFolder(tmp_path / "state", create=True).close()


def test_one_owner_at_a_time(path: Path) -> None:
    owner = StateFolder(path)
    with pytest.raises(StateLockedError, match=f"process {os.getpid()} owns") as caught:
        StateFolder(path)
    assert caught.value.exit_code == 4
    owner.close()
    owner.close()
    StateFolder(path).close()


def test_another_process_is_named(path: Path) -> None:
    program = (
        "import sys; from pqc_iiot.folder import StateFolder; "
        "f = StateFolder(sys.argv[1]); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(StateLockedError, match=f"process {other.pid} owns"):
            StateFolder(path)
        other.send_signal(signal.SIGKILL)
        other.wait()
    StateFolder(path).close()  # a dead owner's lock is none


def test_files_are_replaced_as_a_whole(path: Path) -> None:
    folder = StateFolder(path)
    inode = (path / "identity").stat().st_ino
    folder.write("identity", b"new content")
    assert folder.read("identity", 100) == b"new content"
    assert (path / "identity").stat().st_ino != inode
    assert {entry.name for entry in path.iterdir()} == {"identity", "lock"}
    folder.close()


def test_a_leftover_of_a_crash_does_no_harm(path: Path) -> None:
    (path / "identity.new").touch(0o600)
    (path / "identity.new").write_bytes(b"half written, and longer than what comes")
    folder = StateFolder(path)
    folder.write("identity", b"new")
    assert folder.read("identity", 100) == b"new"
    folder.close()


def test_reading(path: Path) -> None:
    folder = StateFolder(path)
    assert folder.read("none", 10) is None
    assert folder.read("identity", 7) == b"content"
    with pytest.raises(StateError, match="longer than 6 bytes"):
        folder.read("identity", 6)
    with (path / "identity").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(StateError, match="longer"):
        folder.read("identity", 6)
    (path / "identity").unlink()
    (path / "identity").mkdir(0o700)
    with pytest.raises(StateError, match="cannot be read"):
        folder.read("identity", 6)
    folder.close()


def test_a_full_disk_leaves_the_old_file(path: Path) -> None:
    folder = StateFolder(path)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        with pytest.raises(StateError, match="cannot be written: File too large") as caught:
            folder.write("identity", bytes(1000))
        assert "free space" in caught.value.hint
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert folder.read("identity", 100) == b"content"
    assert not (path / "identity.new").exists()
    folder.write("identity", bytes(1000))
    folder.close()


def test_a_folder_that_goes_away(path: Path) -> None:
    folder = StateFolder(path)
    path.rename(path.parent / "gone")
    with pytest.raises(StateError, match="cannot be written"):
        folder.write("identity", b"")
    assert folder.read("identity", 10) is None
    folder.close()
