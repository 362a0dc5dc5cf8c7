"""The command line's own manners: help, completion, failures, and whatever is typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from command import PROGRAM, TIME_LIMIT, environment, pqc, program, run, shell
from devices import copy
from pqc_iiot.cli import app, main

READ_ONLY = ("id show", "id export", "audit tail", "audit verify", "doctor", "status", "peer list")


def commands() -> Iterator[str]:
    """Every command, as typed."""

    def walk(command: Any, path: str) -> Iterator[str]:
        yield path
        for name, sub in getattr(command, "commands", {}).items():
            yield from walk(sub, f"{path} {name}".strip())

    return walk(typer.main.get_command(app), "")


@pytest.fixture
def plc(devices: Path, tmp_path: Path) -> str:
    copy(devices, tmp_path, "plc")
    return f"--state {tmp_path / 'plc'}"


def test_the_commands_are_these() -> None:
    assert set(commands()) == {
        "",
        *("init", "id", "id show", "id export", "id rotate", "id retire", "recover", "backup"),
        "restore",
        *("peer", "peer add", "peer pending", "peer approve", "peer list", "peer show"),
        *("peer revoke", "seal", "open", "send", "listen", "inspect", "status", "doctor"),
        *("inbox", "inbox list", "inbox take", "outbox", "outbox list"),
        *("policy", "policy show", "policy set", "audit", "audit tail", "audit verify"),
        *("audit search", "audit export", "audit stats", "audit report", "audit checkpoint"),
        *("audit prove", "audit check", "audit consistency", "audit witness"),
        *("audit sinks", "audit sinks list", "audit sinks add", "audit sinks remove"),
        *("audit sinks test", "bench", "demo"),
        *("provider", "provider list", "provider test", "provider quote"),
        "provider verify-quote",
    }


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_has_help(command: str) -> None:
    shown = pqc(f"{command} --help")
    assert (shown.code, shown.err) == (0, "")
    for text in ("Usage: ", command, "--state", "--json", "--help"):
        assert text in shown.out
    assert pqc(f"{command} -h").out == shown.out


@pytest.mark.parametrize("command", ["", "id", "peer", "policy", "audit", "provider"])
def test_a_group_alone_shows_its_help(command: str) -> None:
    shown = pqc(command)
    assert (shown.code, shown.err) == (2, "")
    assert shown.out.strip() == pqc(f"{command} --help").out.strip()


def test_three_ways_to_start_it() -> None:
    versions = [
        program("--version").out,
        shell(f"{sys.executable} -m pqc_iiot --version", Path.cwd()).out,
        pqc("--version").out,
    ]
    assert versions == [versions[0]] * 3
    assert versions[0].startswith("pqc-iiot 0.")


def test_help_starts_without_what_it_does_not_need() -> None:
    code = (
        "import sys\nfrom pqc_iiot.cli import main\nmain(['--help'])\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment()
    )
    heavy = {"asyncio", "ssl", "sqlite3", "pydantic", "importlib.metadata"}
    assert not heavy & set(done.stderr.split())


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion_is_generated(kind: str) -> None:
    script = program("", env={"_PQC_IIOT_COMPLETE": f"source_{kind}"})
    assert (script.code, script.err) == (0, "")
    assert "_PQC_IIOT_COMPLETE=complete_" in script.out
    assert "pqc-iiot" in script.out


def test_completion_completes() -> None:
    typed = {"COMP_WORDS": "pqc-iiot peer ap", "COMP_CWORD": "2"}
    offered = program("", env={"_PQC_IIOT_COMPLETE": "complete_bash", **typed})
    assert offered.out.split() == ["approve"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nosuch", "No such command 'nosuch'."),
        ("id exprot", "Did you mean 'export'?"),
        ("--nosuch", "No such option: --nosuch"),
        ("seal", "Missing option '--to'."),
        ("peer list surplus", "unexpected extra argument"),
        ("init", "Missing argument 'NAME'."),
    ],
)
def test_usage_errors(line: str, says: str) -> None:
    people = pqc(line)
    assert (people.code, people.out) == (2, "")
    assert people.err.startswith("error: ")
    assert says in people.err
    assert " --help\n" in people.err
    for with_json in (f"--json {line}", f"{line} --json"):
        (error,) = pqc(with_json).messages
        assert error["error"] == "usage"
        assert says in error["message"]
        assert error["hint"].startswith("pqc-iiot ")


# Nobody reads, or nothing can be written


def test_a_reader_that_goes_away(plc: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for command in READ_ONLY:
        done = subprocess.run(
            [PROGRAM, *plc.split(), *command.split()],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            timeout=TIME_LIMIT,
            env=environment(),
        )
        assert (done.returncode, done.stderr) == (1, b"")
    os.close(writer)


def test_a_full_disk(plc: str, tmp_path: Path) -> None:
    for command in ("id show", "id export", "peer list --json"):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [PROGRAM, *plc.split(), *command.split()],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
                timeout=TIME_LIMIT,
                env=environment(),
                text=True,
            )
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_terminals_of_old(plc: str) -> None:
    pqc(f"{plc} open --context 21.5\u00b0C", b"junk")
    logged = program(f"{plc} audit tail", env={"PYTHONIOENCODING": "ascii"})
    assert "context=21.5\\xb0C" in logged.out
    for command in ("peer list", "doctor", "--help"):
        shown = program(f"{plc} {command}", env={"PYTHONIOENCODING": "ascii"})
        assert shown.code == 0
        assert shown.out.isascii()


# What must not happen


class Panic(BaseException):
    """What a panic in the core looks like: no `Exception`."""


@pytest.mark.parametrize("kind", [RuntimeError, Panic, RecursionError, MemoryError])
def test_an_unexpected_error_is_one_line(
    plc: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: type[BaseException],
) -> None:
    def fail(*_: object) -> None:
        raise kind("with a payload in its text \x1b[31m")

    monkeypatch.setattr("pqc_iiot.node.load_state", fail)
    result = pqc(f"{plc} status")
    assert result.code == 1
    assert result.err == (
        f"error: unexpected {kind.__name__}\nhint: please report this, with what -v adds\n"
    )
    (error,) = pqc(f"{plc} status --json").messages
    assert error["error"] == "unexpected"
    assert main([*plc.split(), "-v", "status"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "load_state" in said
    assert "\x1b" not in said


def test_an_interrupt(plc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pqc_iiot.node.load_state", interrupt)
    result = pqc(f"{plc} status")
    assert (result.code, result.out, result.err) == (130, "", "")


def test_secrets_that_cannot_be_locked_are_one_line(
    plc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pqc_iiot.trail.memory_stats", lambda: (0, 64, 1))
    warned = pqc(f"{plc} peer list")
    assert warned.code == 0
    assert warned.err == (
        "warning: 64 bytes of secret memory could not be locked and may be swapped out:"
        " raise RLIMIT_MEMLOCK (LimitMEMLOCK= in systemd)\n"
    )
    (warning,) = pqc(f"{plc} peer list --json").messages
    assert warning["warning"] == "LockLimitWarning"


# Whatever is typed, and whatever the files hold

FUZZ = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# No slash: nothing here may write outside of the test's folder.
TEXT = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), max_size=30)
WORD = st.one_of(
    TEXT,
    st.integers().map(str),
    st.sampled_from(["plc", "sensor", "-", "--", "plc.bundle", "junk", "0" * 64, "x" * 5000]),
    st.sampled_from(["--json", "--to", "--name", "--approve", "--context", "--suite", "-n"]),
    st.sampled_from(["--yes", "--file", "--lines", "--force", "--trust", "--max-pending"]),
)
FUZZED = [name for name in commands() if name.split(" ")[0] not in ("bench", "demo", "listen")]


@pytest.fixture
def inside(devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy(devices, tmp_path, "sensor", "plc")
    (tmp_path / "junk").write_bytes(b"junk")
    (tmp_path / "plc.bundle").write_bytes((tmp_path / "plc" / "bundle").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@FUZZ
@given(st.sampled_from(FUZZED), st.lists(WORD, max_size=5), st.binary(max_size=50))
def test_any_arguments(inside: Path, command: str, rest: list[str], stdin: bytes) -> None:
    result = run(["--state", "sensor", *command.split(), *rest], stdin)
    assert "error: unexpected " not in result.err
    assert '"unexpected"' not in result.err
    assert result.code == 0 or result.err or "Usage: " in result.out
    if result.code and "--json" in rest:
        assert all("error" in each or "warning" in each for each in result.messages)


Change = Callable[[bytes], bytes]


def _cut(length: int) -> Change:
    return lambda original: original[: length % (len(original) + 1)]


def _edit(edits: list[tuple[int, int]]) -> Change:
    def change(original: bytes) -> bytes:
        changed = bytearray(original)
        for position, value in edits:
            changed[position % len(changed)] = value
        return bytes(changed)

    return change


CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.binary(max_size=300).map(lambda junk: lambda _: junk),
    st.integers(0, 1 << 20).map(_cut),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4).map(
        _edit
    ),
)


@FUZZ
@given(st.sampled_from(["bundle", "audit.log", "identity", "frame"]), CHANGES)
def test_any_file_from_outside(inside: Path, name: str, change: Change) -> None:
    if name == "frame":
        genuine = pqc("--state sensor seal --to plc", b"x").raw
    else:
        genuine = (inside / "sensor" / name).read_bytes()
    (inside / "file").write_bytes(change(genuine))
    (inside / "file").chmod(0o600)
    for line in (
        "inspect file",
        "--state plc peer add file",
        "--state plc open file",
        "audit tail --file file",
        "audit verify --file file",
        "--state plc --passphrase-file file status",
    ):
        for message in pqc(f"{line} --json").messages:
            assert set(message) == {"error", "message", "hint"}
            assert message["error"] != "unexpected"


@FUZZ
@given(
    st.sampled_from(["anchor", "audit.head", "audit.log", "bundle", "identity", "state.db"]),
    st.one_of(st.none(), CHANGES),
)
def test_any_file_of_the_state_folder(
    inside: Path, devices: Path, name: str, change: Change | None
) -> None:
    shutil.rmtree(inside / "plc")
    copy(devices, inside, "plc")
    if change is None:
        (inside / "plc" / name).unlink()
    else:
        (inside / "plc" / name).write_bytes(change((inside / "plc" / name).read_bytes()))
    for line in ("status", "peer list", "doctor", "id export", "audit tail"):
        result = pqc(f"--state plc {line} --json")
        assert result.code in (0, 1, 4), result.err
        for message in result.messages:
            assert message.get("error") not in ("unexpected", "usage")
