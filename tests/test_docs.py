"""The documentation says what is so: its code runs, its commands exist, its tables are the
code's, its links lead somewhere, and every public name is described."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from devices import introduce, make
from pqc_iiot import Node, bundle, envelope, errors, freshness, policy
from pqc_iiot.audit import EVENTS
from pqc_iiot.audit.checkpoint import Checkpoint
from pqc_iiot.cli import app
from pqc_iiot.identity import note_signer
from pqc_iiot.providers import KeySet
from pqc_iiot.suites import SUITES

ROOT = Path(__file__).resolve().parent.parent


def _load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_docs", ROOT / "tools/render_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _load_tool()
PAGES: dict[str, str] = {str(page): (ROOT / page).read_text("utf-8") for page in TOOL.pages()}

_BLOCK = re.compile(r"(<!-- not run: [^\n]* -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)


def _blocks(page: str, language: str, *, run: bool) -> list[tuple[int, str]]:
    """Line and text of a page's blocks; with `run` only those that are to be run."""
    text = PAGES[page]
    return [
        (text.count("\n", 0, found.start(3)), found[3])
        for found in _BLOCK.finditer(text)
        if found[2] == language and not (run and found[1])
    ]


def _table(page: str, name: str) -> list[list[str]]:
    """The cells of the table between the comments `name` and `end of name`."""
    match = re.search(f"<!-- {name} -->\n(.*?)<!-- end of {name} -->", PAGES[page], re.S)
    assert match, f"{page} has no table {name}"
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in match[1].splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def _section(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = PAGES[page].split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# Code


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "python", run=True)])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page}
    for line, code in _blocks(page, "python", run=True):
        exec(compile("\n" * line + code, page, "exec"), names)


def test_python_that_needs_a_broker_compiles() -> None:
    found = [(p, *block) for p in PAGES for block in _blocks(p, "python", run=False)]
    for page, line, code in found:
        compile("\n" * line + code, page, "exec", dont_inherit=True)
    assert any("node.mqtt(" in code for _, _, code in found)


@pytest.mark.parametrize("page", [page for page in PAGES if "pqc-iiot " in PAGES[page]])
def test_commands_exist(page: str) -> None:
    for line, code in _blocks(page, "sh", run=False):
        for words in _commands(code):
            _check_command(words, f"{page}:{line}")


def _commands(code: str) -> Iterator[list[str]]:
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "|"]:
            if not set(word) <= set("|<>"):
                words.append(word)
            else:
                if words[:1] == ["pqc-iiot"]:
                    yield words[1:]
                words = []


def _check_command(words: list[str], where: str) -> None:
    """Follows the words through the commands, and each option to one that takes it."""
    command = typer.main.get_command(app)
    rest = iter(words)
    for word in rest:
        known = {opt: param for param in command.params for opt in getattr(param, "opts", ())}
        if word.startswith("-"):
            assert word in known, f"{where}: {command.name} has no {word}"
            if not getattr(known[word], "is_flag", False):
                next(rest)
        elif isinstance(command, typer.core.TyperGroup):
            assert word in command.commands, f"{where}: {command.name} has no command {word}"
            command = command.commands[word]
    assert not isinstance(command, typer.core.TyperGroup), f"{where}: which command?"


def test_the_quick_start_on_the_command_line_works(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    scripts = [code for _, code in _blocks("README.md", "sh", run=True) if "pqc-iiot " in code]
    assert scripts
    for script in scripts:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "21.5" in done.stdout


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = {target for text in PAGES.values() for target in re.findall(r"`make (\w+)", text)}
    named |= set(re.findall(r"^make (\w+)", PAGES["README.md"], re.M))
    assert named <= targets
    assert {"demo", "test"} <= named


# Links


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", PAGES[page], flags=re.S)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", PAGES[str(file.resolve().relative_to(ROOT))], re.M)
            assert anchor in {TOOL.slug(heading) for heading in headings}, target


def test_every_record_is_short() -> None:
    records = [page for page in PAGES if page.startswith("docs/decisions/")]
    assert records
    numbers = [Path(record).name[:4] for record in records]
    assert len(set(numbers)) == len(numbers)
    for record in records:
        assert len(PAGES[record].splitlines()) <= 60, record
        assert PAGES[record].startswith("# "), record


# Tables


def test_suites() -> None:
    rows = [
        [
            str(suite.id),
            suite.kem.name,
            f"0x{suite.kem.id:04x}",
            str(suite.kem.public_key_size),
            str(suite.kem.ciphertext_size),
            suite.sig.name,
            str(suite.sig.id),
            str(suite.sig.public_key_size),
            str(suite.sig.signature_size),
            str(suite.alg),
            suite.purpose,
        ]
        for suite in SUITES.values()
    ]
    assert _table("docs/protocol.md", "suites") == rows


def test_suites_of_the_readme(nodes: dict[int, Node]) -> None:
    rows = []
    for suite in SUITES.values():
        size = len(nodes[suite.id].seal(bytes(64), to=f"to-{suite.id}")) - 64
        kem = suite.kem.name + (" (X-Wing)" if suite.id == 1 else "")
        rows.append([str(suite.id), kem, suite.sig.name, suite.purpose, str(size)])
    assert _section("README.md", "Suites") == rows


def test_bundle_sizes(nodes: dict[int, Node], tmp_path: Path) -> None:
    said = re.search(
        r"A bundle of suite 1 with a name of 7 letters has (\d+) bytes, and (\d+) after a"
        r" rotation; of\s+suite 5, (\d+) and ([\d,]+)",
        PAGES["docs/protocol.md"],
    )
    assert said
    sizes = []
    for suite in (1, 5):
        with make(tmp_path, f"suite-{suite}", suite) as node:
            sizes += [len(node.bundle.encoded), len(node.rotate().encoded)]
    assert [int(number.replace(",", "")) for number in said.groups()] == sizes


def test_error_codes() -> None:
    classes = [
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, errors.PqcIiotError)
    ]
    said = {tuple(row[:3]) for row in _table("docs/security-model.md", "errors")}
    assert said == {(f"`{e.code}`", f"`{e.__name__}`", str(e.exit_code)) for e in classes}


def test_events_that_are_named_exist() -> None:
    ids = {event.id for event in EVENTS.values()}
    for page, text in PAGES.items():
        assert set(re.findall(r"PQC-\d{4}", text)) <= ids, page


def test_numbers() -> None:
    protocol = PAGES["docs/protocol.md"]
    assert f"A bundle has {bundle.MAX_BUNDLE_SIZE:,} bytes at most" in protocol
    assert f"at most {envelope.MAX_CONTEXT:,} bytes of UTF-8" in protocol
    assert f"`max_payload` + {envelope.MAX_OVERHEAD}" in protocol
    assert f"the last {freshness.RECENT} accepted frames" in protocol
    assert f"memory for the last {freshness.LATELY} of all together" in protocol
    assert f"1..{freshness.MAX_SEQUENCE}" in protocol
    assert f"1..{bundle.MAX_SERIAL}," in protocol
    assert f"`rotation_overlap` ({policy.Policy().rotation_overlap} if" in protocol
    model = PAGES["docs/security-model.md"]
    assert f"wait in a list of at most {policy.Policy().max_pending} (policy)" in model
    assert f"At most\n  {policy.Policy().max_pinned} (policy) are pinned" in model


def test_what_is_signed_differs_in_its_beginning(
    nodes: dict[int, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = nodes[1]._reception.identity.current.keys
    signed: list[bytes] = []
    sign = type(keys).sign

    def note(self: KeySet, message: bytes) -> bytes:
        if threading.current_thread() is threading.main_thread():  # not what the log signs
            signed.append(message)
        return sign(self, message)

    monkeypatch.setattr(type(keys), "sign", note)
    nodes[1].seal(b"", to="to-1")
    bundle.make_bundle("name", keys, 1)
    nodes[1].presence.record()
    signer = note_signer(nodes[1]._reception.identity.current)
    checkpoint = Checkpoint("pqc-iiot/name/0", 1, bytes(32)).signed(signer)
    checkpoint.cosigned(signer)
    starts = [row[1] for row in _section("docs/protocol.md", "What a signature key signs")]
    for message, start in zip(signed, starts, strict=True):
        begin = re.match(r"`h'(\w+)'`|text: `(.*)`", start)
        assert begin
        assert message.startswith(bytes.fromhex(begin[1]) if begin[1] else begin[2].encode())
    assert len({message[:13] for message in signed}) == len(signed)


def test_the_layout_is_that_of_a_frame(nodes: dict[int, Node]) -> None:
    node = nodes[1]
    frame = node.seal(b"21.5", to="to-1")
    while envelope.parse(frame).sequence < 7:
        frame = node.seal(b"21.5", to="to-1")
    header = envelope.parse(frame)
    end = 0
    for offset, size, content, _ in _table("docs/protocol.md", "frame layout"):
        assert int(offset) == end
        end += int(size)
        if content != "`…`":
            there = frame[int(offset) : end]
            there = there.replace(header.recipient, b"\xee" * 8).replace(header.sender, b"\xef" * 8)
            shown = content.strip("`").replace("rr", "ee").replace("ss", "ef")
            assert there.hex(" ") == shown, offset
    assert end == len(frame) == 1854


def test_the_layout_of_the_plaintext(nodes: dict[int, Node]) -> None:
    node, peer = nodes[1], nodes[-1]
    frame = node.seal(b"21.5", to="to-1")
    header = envelope.parse(frame)
    context = envelope.encode_context("")
    keys = peer._reception.identity.current.keys
    plaintext = keys.decrypt(header.enc, b"", header.aad(context), header.ciphertext)
    end = 0
    for offset, size, content, _ in _table("docs/protocol.md", "plaintext layout"):
        assert int(offset) == end
        end += int(size)
        if content != "`…`":
            assert plaintext[int(offset) : end].hex(" ") == content.strip("`")
    assert end == len(plaintext)


def test_every_rule_names_a_test_that_exists() -> None:
    rows = _table("docs/security-model.md", "rules")
    assert rows
    for rule, where, tests in rows:
        assert where, rule
        names = re.findall(r"`([^`]+)`", tests)
        assert names, rule
        for name in names:
            file, _, function = name.partition("::")
            source = (ROOT / file).read_text("utf-8")
            assert re.search(rf"\b(def|fn) {function}\b", source), name
        for file in re.findall(r"`([^`:]+)`", where):
            assert (ROOT / file).exists(), file


# Docstrings


def test_every_public_name_is_described() -> None:
    assert TOOL.missing_docstrings() == []


def test_a_missing_docstring_is_found() -> None:
    class Undescribed:
        def method(self) -> None: ...

        @property
        def number(self) -> int:
            return 1

        @classmethod
        def made(cls) -> None: ...

    found = TOOL._undocumented("x", Undescribed)
    assert found == ["x", "x.method", "x.number", "x.made"]


def test_a_page_is_rendered() -> None:
    page = TOOL.render_page("# A b\n\n[x](docs/protocol.md#layout-with-an-example)\n", 0)
    assert '<h1 id="a-b">A b</h1>' in page
    assert 'href="docs/protocol.html#layout-with-an-example"' in page


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Node]]:
    """A sender of each suite, by its number, whose peer `to-N` has the same suite and, by its
    negative number, is there too."""
    folder = tmp_path_factory.mktemp("nodes")
    made = {}
    for suite in SUITES:
        made[suite] = make(folder, f"from-{suite}", suite)
        made[-suite] = make(folder, f"to-{suite}", suite)
        introduce(made[suite], made[-suite])
    yield made
    for node in made.values():
        node.close()
