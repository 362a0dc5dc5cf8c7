"""The command line for tests: in this process where speed matters, or as users run it."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from pqc_iiot.cli import main

PROGRAM = Path(sys.executable).with_name("pqc-iiot")
TIME_LIMIT = 60
"""Seconds after which a command is taken for hung; no test depends on its being faster."""


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, standard output and standard error."""

    code: int
    raw: bytes
    err: str

    def __post_init__(self) -> None:
        assert self.code in (0, 1, 2, 3, 4, 130), (self.code, self.err)
        assert "Traceback" not in self.err
        binary = any(byte > 0x7E for byte in self.raw)
        assert "\x1b[" not in self.err + ("" if binary else self.out), "colours, and no terminal"

    @property
    def out(self) -> str:
        """Standard output as text."""
        return self.raw.decode("utf-8", "replace")

    @property
    def data(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.raw)

    @property
    def lines(self) -> list[Any]:
        """The JSON documents on standard output, one a line."""
        return [json.loads(line) for line in self.raw.splitlines()]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The JSON documents on standard error, one a line."""
        return [json.loads(line) for line in self.err.splitlines()]


def words(line: str) -> list[str]:
    """A command line in words, without the program's name that may stand first."""
    return shlex.split(line.removeprefix("pqc-iiot "))


def pqc(line: str, stdin: bytes = b"") -> Result:
    """Runs a command in this process, with no terminal in sight."""
    return run(words(line), stdin)


def run(arguments: Sequence[str], stdin: bytes = b"") -> Result:
    """The same for a command line that is in words already."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    given = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    with redirect_stdout(out), redirect_stderr(err), mock.patch("sys.stdin", given):
        code = main(arguments)
    raw, said = (stream.buffer for stream in (out, err))
    assert isinstance(raw, io.BytesIO)
    assert isinstance(said, io.BytesIO)
    return Result(code, raw.getvalue(), said.getvalue().decode())


def environment(**more: str) -> dict[str, str]:
    """A plain environment, in which the program is found."""
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
    return {**kept, "PATH": f"{PROGRAM.parent}:{os.defpath}", **more}


def program(
    line: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Result:
    """Runs a command as users do, in a process of its own that has no terminal."""
    done = subprocess.run(
        [PROGRAM, *words(line)],
        input=stdin,
        capture_output=True,
        env=environment(**(env or {})),
        cwd=cwd,
        check=False,
        timeout=TIME_LIMIT,
        start_new_session=True,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def shell(line: str, cwd: Path) -> Result:
    """Runs a line in a shell, as pasted."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        cwd=cwd,
        check=False,
        timeout=TIME_LIMIT,
        start_new_session=True,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())
