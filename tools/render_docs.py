"""Renders `site/`: the API reference (pdoc) and every page of the documentation.

    python tools/render_docs.py [FOLDER]

Works offline. Fails where a public name of the package has no docstring, before it writes
anything.
"""

from __future__ import annotations

import ast
import html
import importlib
import inspect
import itertools
import pkgutil
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pqc_iiot

ROOT = Path(__file__).resolve().parent.parent
CORE = "pqc_iiot._core"
STUB = Path(*pqc_iiot.__path__, "_core.pyi")
_SKIPPED = {"pqc_iiot.__main__"}
"""Importing it runs it."""

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title} - PQC-IIoT</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: auto; padding: 1rem; }}
table {{ border-collapse: collapse; }} th, td {{ border: 1px solid #ccc; padding: 0.2rem 0.5rem; }}
pre {{ background: #f5f5f5; padding: 0.7rem; overflow-x: auto; }}
</style></head><body><p><a href="{up}index.html">PQC-IIoT</a> ·
<a href="{up}api/pqc_iiot.html">API</a></p>
{body}</body></html>
"""


def pages() -> list[Path]:
    """Every page of the documentation, relative to the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    return sorted(page.relative_to(ROOT) for page in found)


def modules() -> Iterator[ModuleType]:
    """Every public module of the package, and the core."""
    yield pqc_iiot
    for found in pkgutil.walk_packages(pqc_iiot.__path__, "pqc_iiot."):
        if found.name not in _SKIPPED and (found.name == CORE or not _private(found.name)):
            yield importlib.import_module(found.name)


def missing_docstrings() -> list[str]:
    """The public names without a docstring: modules, classes, functions and methods."""
    missing = []
    for module in modules():
        missing += [] if module.__doc__ else [module.__name__]
        for name, member in vars(module).items():
            if not name.startswith("_") and getattr(member, "__module__", "") == module.__name__:
                missing += _undocumented(f"{module.__name__}.{name}", member)
    return missing + _undocumented_stubs()


def _private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


def _undocumented(name: str, member: object) -> list[str]:
    if inspect.isclass(member):
        below = [
            missing
            for key, value in vars(member).items()
            if not key.startswith("_")
            for missing in _undocumented(f"{name}.{key}", value)
        ]
        return below if _documented(member) else [name, *below]
    if isinstance(member, classmethod | staticmethod):
        member = member.__func__
    described = inspect.isroutine(member) or inspect.isdatadescriptor(member)
    slot = inspect.ismemberdescriptor(member)
    return [name] if described and not slot and not member.__doc__ else []


def _documented(cls: type) -> bool:
    text = cls.__doc__ or ""
    return bool(text) and not text.startswith(f"{cls.__name__}(")  # dataclass writes its own


def _undocumented_stubs() -> list[str]:
    """The same for the core's stub file, which is what editors and pdoc show."""

    def walk(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
        for each in node.body:
            if isinstance(each, ast.ClassDef | ast.FunctionDef) and each.name[0] != "_":
                if not ast.get_docstring(each):
                    yield f"{prefix}.{each.name} (stub)"
                if isinstance(each, ast.ClassDef):
                    yield from walk(each, f"{prefix}.{each.name}")

    return list(walk(ast.parse(STUB.read_text("utf-8")), CORE))


def slug(heading: str) -> str:
    """The anchor of a heading, as code forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def render_page(text: str, depth: int) -> str:
    """A page of Markdown as HTML; `depth` is how many folders below the top it stands."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = parser.parse(text)
    title = "PQC-IIoT"
    for token, inline in itertools.pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", slug(inline.content))
            title = inline.content if token.tag == "h1" else title
    for token in (child for each in tokens for child in each.children or ()):
        if token.type == "link_open":
            token.attrSet("href", _link(str(token.attrGet("href"))))
    body = parser.renderer.render(tokens, parser.options, {})
    return _PAGE.format(title=html.escape(title), up="../" * depth, body=body)


def _link(target: str) -> str:
    if "://" in target:
        return target
    path, hash_, anchor = target.partition("#")
    if path.endswith(".md"):
        path = path[:-3] + ".html"
    path = re.sub(r"(^|/)README\.html$", r"\1index.html", path)
    if path.endswith("/"):
        path += "index.html"
    return path + hash_ + anchor


def render(site: Path) -> None:
    """Writes everything into `site`, replacing what is there."""
    shutil.rmtree(site, ignore_errors=True)
    for page in pages():
        target = site / _link(str(page))
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / page).read_text("utf-8")
        target.write_text(render_page(text, len(page.parts) - 1), "utf-8")
    records = sorted((ROOT / "docs/decisions").glob("*.md"))
    index = "# Decisions\n\n" + "".join(
        f"- [{record.read_text('utf-8').partition(chr(10))[0].lstrip('# ')}]({record.name})\n"
        for record in records
    )
    (site / "docs/decisions/index.html").write_text(render_page(index, 2), "utf-8")
    shutil.copy(ROOT / "LICENSE", site / "LICENSE")
    render_reference(site / "api")


def render_reference(folder: Path) -> None:
    """Writes the API reference."""
    import pdoc

    pdoc.render.configure(docformat="markdown", footer_text=f"PQC-IIoT {version('pqc-iiot')}")
    names = [module.__name__ for module in modules()]
    with tempfile.TemporaryDirectory() as stubs, warnings.catch_warnings():
        # pdoc executes a stub, where a class cannot name itself without this import.
        stub = Path(stubs, CORE.replace(".", "/")).with_suffix(".pyi")
        stub.parent.mkdir()
        stub.write_text("from __future__ import annotations\n" + STUB.read_text("utf-8"), "utf-8")
        sys.path.insert(0, stubs)
        # It tells of modules that it found twice, and of annotations that it shows as text.
        warnings.simplefilter("ignore")
        try:
            pdoc.pdoc(*names, output_directory=folder)
        finally:
            sys.path.remove(stubs)


def main(arguments: list[str]) -> int:
    """Returns the exit code: 1 where a public name is undocumented."""
    if missing := missing_docstrings():
        print("public names without a docstring:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    site = Path(arguments[0]) if arguments else ROOT / "site"
    render(site)
    print(f"{len(list(site.rglob('*.html')))} pages in {site}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
