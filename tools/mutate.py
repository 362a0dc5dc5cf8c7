"""Mutation testing of the rules: one small change after another, and whether a test sees it.

    python tools/mutate.py [--every N] [--again NAMES] [FILE ...]

Prints every mutant that no test noticed, and the share of those that were. A mutant runs in
a fork that compiles the changed file in place of the real one, under the tests that reach
its line, the quickest first; one that ends in an error or takes far too long is noticed,
too. Messages, hints, names, annotations and docstrings are left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from mutants import Mutant, Mutator

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/pqc_iiot"
RULES = [
    "freshness.py",
    "keystore.py",
    "node.py",
    "reception.py",
    "session/channel.py",
    "session/fates.py",
    "session/frames.py",
    "session/handshakes.py",
    "session/limits.py",
    "session/peer.py",
    "session/table.py",
    "sessions.py",
]
"""Where it is decided who is trusted, what is fresh, and what a session does."""
TESTS = [
    "test_backup.py",
    "test_faults.py::test_unless_policy_demands_it",
    "test_freshness.py",
    "test_inbox.py",
    "test_keystore.py",
    "test_metrics.py",
    "test_node.py",
    "test_node_attacks.py",
    "test_node_packets.py",
    "test_node_rotation.py",
    "test_node_sessions.py",
    "test_outbox.py",
    "test_peers.py",
    "test_policy.py",
    "test_rollback.py",
    "test_session_attacks.py",
    "test_session_channel.py",
    "test_session_fates.py",
    "test_session_frames.py",
    "test_session_handshakes.py",
    "test_session_limits.py",
    "test_session_network.py",
    "test_session_peer.py",
    "test_session_rules.py",
    "test_session_succession.py",
    "test_session_table.py",
    "test_session_times.py",
    "test_sessions.py",
    "test_state.py",
    "test_status.py",
    "test_witness.py",
]
"""The tests of those rules that stay in their process: a mutant exists in one alone."""
MEMORY = 4 << 30
"""Bytes that a mutant may ask for."""


class Reach:
    """A plugin that notes which tests reach which lines of the rules, and how long they take."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = {str(path) for path in paths}
        self.lines: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """After each part of a test."""
        if report.failed:
            self.failed.append(f"{report.nodeid}: {report.longreprtext[-2000:]}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Around each test with its fixtures."""
        import threading

        self._test, begin = item.nodeid, time.monotonic()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.seconds[item.nodeid] = time.monotonic() - begin

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in self._paths:
            return None
        self._note(frame, event, _)
        return self._note

    def _note(self, frame: FrameType, event: str, _: object) -> Any:
        self.lines[frame.f_code.co_filename, frame.f_lineno].add(self._test)
        return self._note


def run_tests(tests: list[str], *plugins: object) -> int:
    """Runs tests in this process, quietly, up to the first that fails."""
    os.chdir(ROOT)
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    out = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = io.StringIO()
    try:
        return pytest.main([*options, *tests], plugins=list(plugins))
    finally:
        sys.stdout, sys.stderr = out


def forked(seconds: float, tests: list[str], mutant: Mutant | None) -> int:
    """What the tests say of a mutant, in a child: 0 if they notice nothing."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (1, 2):
                os.dup2(null, stream)
            if mutant:
                put_in_place(mutant)
            code = int(run_tests(tests))
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


def put_in_place(mutant: Mutant) -> None:
    """From here on its file is compiled as the mutant has it."""
    original, source = SourceFileLoader.get_code, mutant.source()

    def get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        if Path(path) == mutant.path:
            return compile(source, path, "exec")
        return original(self, fullname)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment]


def reach(paths: list[Path], tests: list[str]) -> Reach:
    """Who reaches what; in a child, as everything that imports the rules is."""
    import pickle

    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        found = Reach(paths)
        code = run_tests(tests, found)
        with open(writer, "wb") as pipe:  # noqa: PTH123 - a descriptor
            pickle.dump((code, found.failed, dict(found.lines), found.seconds), pipe)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:  # noqa: PTH123 - a descriptor
        code, failed, lines, seconds = pickle.load(pipe)  # noqa: S301 - from ourselves
    os.waitpid(pid, 0)
    if code:
        sys.exit(f"the tests fail without any mutant: {failed}")
    found = Reach(paths)
    found.lines.update(lines)
    found.seconds = seconds
    return found


def name_of(mutant: Mutant) -> str:
    """Where it is and what it does, on one line."""
    return f"{mutant.path.relative_to(PACKAGE)}:{mutant}"


def main() -> None:
    """See the file's own text."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--again", type=Path, help="only those that this file names")
    parser.add_argument("--every", type=int, default=1, help="only each Nth mutant")
    parser.add_argument("--list", action="store_true", help="only count them")
    parser.add_argument("files", nargs="*", default=RULES, help="below src/pqc_iiot")
    arguments = parser.parse_args()
    paths = [PACKAGE / file for file in arguments.files if (PACKAGE / file).exists()]
    mutants = [mutant for path in paths for mutant in Mutator(path).found]
    if arguments.again:
        names = set(arguments.again.read_text().splitlines())
        mutants = [mutant for mutant in mutants if name_of(mutant) in names]
    mutants = mutants[:: arguments.every]
    if arguments.list:
        sys.exit(f"{len(mutants)} mutants")
    # What every test needs is there before the forks; what is tested is not.
    import cbor2  # noqa: F401
    import cryptography.hazmat.primitives.asymmetric.ec  # noqa: F401
    import hypothesis.strategies  # noqa: F401

    found = reach(paths, [str(ROOT / "tests" / name) for name in TESTS])
    everybody = sorted(found.seconds, key=found.seconds.__getitem__)
    tried: Counter[Path] = Counter()
    noticed: Counter[Path] = Counter()
    with contextlib.suppress(KeyboardInterrupt):  # what was tried counts
        for mutant in mutants:
            # A line that runs when the file is imported concerns everybody.
            covering = found.lines.get((str(mutant.path), mutant.line)) or set(everybody)
            tests = [test for test in everybody if test in covering]
            limit = 20 + 10 * sum(found.seconds[test] for test in tests)
            result = forked(limit, tests, mutant)
            tried[mutant.path] += 1
            if result:
                noticed[mutant.path] += 1
            else:
                print(name_of(mutant), flush=True)
    print()
    for path, count in tried.items():
        share = 100 * noticed[path] / count
        print(f"{path.relative_to(PACKAGE)}: {noticed[path]} of {count} noticed, {share:.1f} %")
    share = 100 * noticed.total() / max(1, tried.total())
    print(f"all: {noticed.total()} of {tried.total()} noticed, {share:.1f} %")


if __name__ == "__main__":
    main()
