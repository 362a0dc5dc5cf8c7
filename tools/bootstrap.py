"""Sets up `.venv` with what a Makefile target needs: `python3 tools/bootstrap.py EXTRA...`

Needs Python 3.10, a Rust toolchain and a C compiler, nothing else. Makes the environment,
installs this package's dependencies with the extras of pyproject.toml that are named, and
builds the Rust core in release mode. What is up to date is left alone.
"""
# ruff: noqa: S603 - the commands are pip, maturin, cargo and the C compiler

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "bootstrap.json"
BUILT = (VENV / "bin" / "pqc-iiot", ROOT / "src" / "pqc_iiot" / "_core.abi3.so")

# What the tools say while they work: pip's packages, and cargo's own count of its crates.
_COLLECTING = re.compile(r"\s*Collecting ([\w.-]+)")
_NOISE = re.compile(r"\s*$|Requirement already satisfied|Ignoring |Looking in ")
_BUILDING = re.compile(r"\s*Building \[.*\] (\d+)/(\d+)(?:: (.*))?")


def main(extras: list[str]) -> int:
    """Returns the exit code: 0 if everything is there now."""
    if sys.version_info < (3, 10):  # noqa: UP036 - this file is run by whatever Python there is
        fail(f"Python 3.10 is needed, this is {sys.version.split()[0]}", "make PYTHON=python3.12")
    pyproject = ROOT / "pyproject.toml"
    text = pyproject.read_text("utf-8")
    table = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    known = re.findall(r"^([\w-]+) = \[", table, re.MULTILINE)
    if unknown := set(extras).difference(known):
        fail(f"pyproject.toml has no extra {min(unknown)!r}", f"It has: {', '.join(known)}.")
    with pyproject.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time, also under `make -j`
        inputs = hash_inputs()
        done = read_stamp()
        if done["inputs"] == inputs and not set(extras).difference(done["extras"]):
            return 0
        wanted = sorted(set(extras).union(done["extras"]))
        set_up(re.findall(r'^requires = \["(.*)"\]', text, re.MULTILINE), wanted)
        STAMP.write_text(json.dumps({"inputs": inputs, "extras": wanted}), "utf-8")
    return 0


def set_up(build_requires: list[str], extras: list[str]) -> None:
    """The three steps; the first that fails ends the program."""
    environment = check_tools()
    python = str(VENV / "bin" / "python")
    # An environment of another Python, or of one that is no longer there, is made anew.
    same = f"import sys, pip; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    if not works(python, "-c", same):
        run("1/3 Environment", [sys.executable, "-m", "venv", "--clear", str(VENV)], environment)
    run("2/3 Build tool", [python, "-m", "pip", "install", *build_requires], environment)
    build = [str(VENV / "bin" / "maturin"), "develop", "--release"]
    if extras:
        build.append("--extras=" + ",".join(extras))
    run("3/3 Packages and Rust core", build, environment)


def hash_inputs() -> str:
    """SHA-256 over everything that the installation depends on, in hex."""
    names = ("pyproject.toml", "Cargo.toml", "Cargo.lock", ".cargo/config.toml")
    files = [ROOT / name for name in names]
    for folder in ("core", "python"):
        files += sorted(f for f in (ROOT / "rust" / folder).rglob("*") if f.is_file())
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(ROOT)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def read_stamp() -> dict[str, str | list[str]]:
    """What the last run left, or nothing if it or its results are gone."""
    try:
        done = json.loads(STAMP.read_text("utf-8"))
        if all(path.exists() for path in (VENV / "bin" / "python", *BUILT)):
            return {"inputs": done["inputs"], "extras": done["extras"]}
    except (OSError, ValueError, KeyError):
        pass
    return {"inputs": "", "extras": []}


def check_tools() -> dict[str, str]:
    """The environment variables for the tools; ends the program where one is missing."""
    environment = dict(os.environ, VIRTUAL_ENV=str(VENV), PIP_DISABLE_PIP_VERSION_CHECK="1")
    environment.pop("CONDA_PREFIX", None)  # maturin would not know which of the two is meant
    # Where rustup puts it, and where a shell finds it only after its next start.
    environment["PATH"] = os.pathsep.join(
        (environment.get("PATH", os.defpath), str(Path.home() / ".cargo" / "bin"))
    )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        fail(
            f"{sys.executable} cannot make virtual environments",
            "On Debian and Ubuntu: apt install python3-venv",
        )
    needed = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.M)
    least = needed[1] if needed else "0"
    cargo = shutil.which("cargo", path=environment["PATH"])
    if cargo is None:
        fail("there is no cargo", f"Install Rust {least} or newer: https://rustup.rs")
    version = output(environment, cargo, "--version").split()[1:2]
    if numbers("".join(version)) < numbers(least):
        fail(f"cargo {' '.join(version) or '(broken)'} is too old", f"Rust {least}: rustup update")
    compiler = os.environ.get("CC", "cc")
    program = "#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n"
    check = [*compiler.split(), "-x", "c", "-", "-o", os.devnull]
    try:
        subprocess.run(check, input=program, text=True, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(
            f"{compiler} compiles no C program: {getattr(error, 'stderr', '') or error}".strip(),
            "On Debian and Ubuntu: apt install build-essential",
        )
    return environment


def works(*command: str) -> bool:
    """Whether a command runs and succeeds."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def output(environment: dict[str, str], *command: str) -> str:
    """What a command prints."""
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout


def numbers(version: str) -> list[int]:
    """A version as something that compares."""
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def run(title: str, command: list[str], environment: dict[str, str]) -> None:
    """Runs one step, shows how far it is, and ends the program with its output if it fails."""
    line = Line(title)
    if line.live:
        environment = dict(environment, CARGO_TERM_PROGRESS_WHEN="always")
        environment["CARGO_TERM_PROGRESS_WIDTH"] = "120"
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    said, rest = [], ""
    with process.stdout as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=0.2):
                chunk = os.read(pipe.fileno(), 65536)
                if not chunk:
                    break
                *lines, rest = re.split(r"[\r\n]+", rest + chunk.decode("utf-8", "replace"))
                said += [each for each in lines if not line.take(each)]
            line.show()
    code = process.wait()
    line.end("done" if code == 0 else "FAILED")
    if code:
        print(*said, rest, sep="\n", file=sys.stderr)
        fail(f"{title.partition(' ')[2]} failed: {' '.join(command)}", "See the output above.")


class Line:
    """The line of one step: alive with a bar on a terminal, plain otherwise."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._glyphs = "━─" if "utf" in (sys.stderr.encoding or "").lower() else "#."
        self._since = time.monotonic()
        self._done, self._all, self._detail = 0, 0, ""
        if not self.live:
            print(f"[{title}] ...", file=sys.stderr, flush=True)

    def take(self, said: str) -> bool:
        """Learns from what the tool said; True if nobody needs to read it."""
        if found := _BUILDING.match(said):
            self._done, self._all, self._detail = int(found[1]), int(found[2]), found[3] or ""
            return True
        if found := _COLLECTING.match(said):
            self._detail = found[1]
        return _NOISE.match(said) is not None

    def show(self) -> None:
        """Draws the line as it is now."""
        if self.live:
            width = 24
            filled = width * self._done // self._all if self._all else 0
            bar = self._glyphs[0] * filled + self._glyphs[1] * (width - filled)
            count = f"{self._done}/{self._all}" if self._all else ""
            text = f"[{self.title}] {bar} {count:7} {self._seconds():>4} s  {self._detail}"
            columns = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:columns]}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self, result: str) -> None:
        """Replaces the line with how it ended."""
        start = "\r\x1b[K" if self.live else ""
        print(f"{start}[{self.title}] {result} in {self._seconds()} s", file=sys.stderr)

    def _seconds(self) -> str:
        return f"{time.monotonic() - self._since:.0f}"


def fail(problem: str, hint: str) -> NoReturn:
    """Says what is wrong and what to do, and ends the program."""
    print(f"error: {problem}\n{hint}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; run it again to go on")
